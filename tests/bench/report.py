"""The table: every row of the design's targets that was measured, as a ratio to the better of the rivals."""

from __future__ import annotations

from dataclasses import dataclass

from tests.bench.measure import median


@dataclass(frozen=True)
class Row:
    """`higher` = more is better; `must` and `goal` are ratios to the peer, or with `absolute` bounds in `unit`."""

    name: str
    title: str
    unit: str
    must: float
    goal: float
    higher: bool = False
    absolute: bool = False
    peer: str | None = None  # a figure of another name, or one rival only as "mdbox:store_all"


ROWS = (
    Row("inbound", "inbound SMTP until visible by IMAP", "msg/s", 3, 5, higher=True),
    Row("accept_p50", "accept latency, median", "ms", 2, 3),
    Row("inbound_cpu", "CPU per message received", "ms", 3, 6),
    Row("append_1", "APPEND, one connection", "msg/s", 1.5, 4, higher=True),
    Row("append_8", "APPEND, eight connections", "msg/s", 1.2, 2, higher=True),
    Row("login_plain", "logins, plain", "per s", 2, 5, higher=True),
    Row("login_tls", "logins, TLS", "per s", 1.3, 2, higher=True),
    Row("select", "SELECT, warm", "ms", 3, 1, absolute=True),
    Row("qresync", "QRESYNC, nothing changed", "ms", 5, 2, absolute=True),
    Row("fetch_flags", "FETCH 1:* (UID FLAGS)", "ms", 0.5, 1),
    Row("fetch_structure", "FETCH ENVELOPE BODYSTRUCTURE, warm", "ms", 1, 2),
    Row("fetch_structure_first", "FETCH ENVELOPE BODYSTRUCTURE, first", "ms", 5, 9),
    Row("fetch_headers", "FETCH header fields, warm", "ms", 0.8, 1.5),
    Row("fetch_headers_first", "FETCH header fields, first", "ms", 3, 6),
    Row("fetch_bodies", "download all bodies", "ms", 0.5, 1),
    Row("search_body_rare", "SEARCH BODY, rare word", "ms", 10, 100),
    Row("search_text_rare", "SEARCH TEXT, rare word", "ms", 10, 100),
    Row("search_from", "SEARCH FROM", "ms", 1, 3),
    Row("search_subject", "SEARCH SUBJECT", "ms", 1, 3),
    Row("sort_subject", "SORT by subject, warm", "ms", 0.5, 1),
    Row("sort_from", "SORT by sender and date, warm", "ms", 0.5, 1),
    Row("thread", "THREAD=REFERENCES, warm", "ms", 0.5, 1),
    Row("store_all", "STORE on all, against maildir", "ms", 3, 5, peer="maildir:store_all"),
    Row("store_all", "STORE on all, against mdbox", "ms", 0.2, 0.3, peer="mdbox:store_all"),
    Row("move_1000", "MOVE of 1,000, against maildir", "ms", 1, 3, peer="maildir:move_1000"),
    Row("move_1000", "MOVE of 1,000, against mdbox", "ms", 0.5, 1, peer="mdbox:move_1000"),
    Row("mbsync", "mbsync of the whole mailbox", "s", 0.7, 1),
    Row("idle_kb", "memory of an idle session, plain", "kB", 40, 10, absolute=True),
    Row("idle_tls_kb", "memory of an idle session, TLS", "kB", 80, 40, absolute=True),
    Row("idle_notice", "new mail to IDLE notification", "ms", 25, 8, absolute=True),
    Row("start", "second start until mail is accepted", "s", 5, 3, absolute=True),
    Row("installation_mb", "memory of the idle installation", "MB", 500, 300, absolute=True),
)


GROWTH = (
    ("select", "SELECT"),
    ("window", "FETCH of the last 50: UID FLAGS ENVELOPE"),
    ("search", "SEARCH BODY, rare word"),
    ("sort", "SORT by subject"),
    ("store_on", "STORE of one"),
    ("notice", "new message to IDLE notification"),
    ("selected_kb", "memory of a session that has it selected, kB"),
)


def growth(figures: dict[str, dict[str, list[float]]], count: int) -> str:
    """What a mailbox of `count` messages costs beside one of a twentieth, in ms but for the last row."""
    kinds = list(figures)
    heads = [f"{kind}, {size:,}" for kind in kinds for size in (count // 20, count)]
    lines = ["| one mailbox, ms | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
    for name, title in GROWTH:
        cells = [_number(median(figures[kind][f"{name}_{size}"])) for kind in kinds for size in ("part", "whole")]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def table(figures: dict[str, dict[str, list[float]]]) -> str:
    """A Markdown table; the peer is the better of the rivals, figures are medians of the rounds."""
    lines = [
        "| operation | unit | Mailstead | peer | ratio | must | goal | |",
        "|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in ROWS:
        if row.name not in figures["mailstead"]:
            continue
        ours = median(figures["mailstead"][row.name])
        peer = _peer(row, figures)
        ratio = None if peer is None else ours / peer if row.higher else peer / ours
        if row.absolute:
            verdict = "goal" if ours <= row.goal else "must" if ours <= row.must else "missed"
            bounds = [f"≤ {row.must:g}", f"≤ {row.goal:g}"]
        else:
            verdict = (
                "" if ratio is None else "goal" if ratio >= row.goal else "must" if ratio >= row.must else "missed"
            )
            bounds = [f"{row.must:g}x", f"{row.goal:g}x"]
        cells = [
            row.title,
            row.unit,
            _number(ours),
            _number(peer),
            "–" if ratio is None else f"{ratio:.2f}x",
            *bounds,
            verdict,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _peer(row: Row, figures: dict[str, dict[str, list[float]]]) -> float | None:
    if row.peer:
        rival, _, name = row.peer.partition(":")
        values = figures.get(rival, {}).get(name)
        return median(values) if values else None
    found = [median(each[row.name]) for kind, each in figures.items() if kind != "mailstead" and row.name in each]
    if not found:
        return None
    return max(found) if row.higher else min(found)


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
