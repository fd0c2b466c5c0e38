"""The box that `manage.py up` prints once everything answers."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from mailcore.conf import Conf
from mailcore.supervise import probes
from mailcore.supervise.setup import Result

_LISTENERS = (
    ("Mail from other servers", (("smtp_port", "SMTP"), ("lmtp_port", "LMTP"))),
    ("Mail from your programs", (("submission_port", "submission, STARTTLS"), ("submissions_port", "TLS"))),
    ("Mail to your programs", (("imap_port", "IMAP, STARTTLS"), ("imaps_port", "TLS"))),
)


def web_address(conf: Conf) -> str:
    """Where a browser on this machine finds the webmail."""
    host = probes.reachable(conf.bind)
    return f"http://{f'[{host}]' if ':' in host else host}:{conf.http_port}/"


def _rows(conf: Conf, result: Result, embedded: tuple[bool, bool]) -> Iterator[tuple[str, str]]:
    yield "Webmail", web_address(conf)
    for label, listeners in _LISTENERS:
        open_ones = [
            (getattr(conf, field), what)
            for field, what in listeners
            if getattr(conf, field) and probes.listens(conf.bind, getattr(conf, field))
        ]
        if open_ones:
            yield label, "   ".join(f"{conf.bind}:{port} ({what})" for port, what in open_ones)
    yield "Host name", conf.hostname
    yield "Data", str(conf.data)
    postgres, valkey = ("embedded" if each else "yours" for each in embedded)
    yield "Servers", f"Postgres: {postgres}, Redis/Valkey: {valkey}"
    if result.admin:
        yield "", ""
        yield "Sign in as", f"[bold]{result.admin}[/bold]"
        yield "with the password", f"[bold]{result.password}[/bold]   (shown only this once)"


def box_text(conf: Conf, result: Result, embedded: tuple[bool, bool], seconds: float, *, colour: bool) -> str:
    """The box as text, with colours for a terminal."""
    table = Table.grid(padding=(0, 2))
    for label, value in _rows(conf, result, embedded):
        table.add_row(f"[dim]{label}[/dim]", value)
    width = shutil.get_terminal_size().columns if colour else 100
    console = Console(file=io.StringIO(), width=width, force_terminal=colour, no_color=not colour, highlight=False)
    with console.capture() as captured:
        console.print(
            Panel(
                table,
                title="[bold]Mailstead is ready[/bold]",
                subtitle=f"started in {seconds:.1f} s, Ctrl-C stops",
                box=box.ROUNDED,
                expand=False,
                padding=(1, 2),
            )
        )
    return captured.get()
