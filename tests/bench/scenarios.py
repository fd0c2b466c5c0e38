"""What is measured. Each function takes a server and returns figures by name: rates per second, times in
milliseconds."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench import clients, corpus, measure, servers
from tests.bench.clients import Imap
from tests.bench.servers import PASSWORD, Server

Figures = dict[str, float]
SELECTING = 20  # sessions whose memory is measured in the large mailbox
HEADERS = "BODY.PEEK[HEADER.FIELDS (From To Subject Date Message-ID References In-Reply-To)]"
READS = {
    "fetch_flags": "FETCH 1:* (UID FLAGS)",
    "fetch_structure": "FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE)",
    "fetch_headers": f"UID FETCH 1:* (UID RFC822.SIZE FLAGS {HEADERS})",
    "fetch_bodies": "UID FETCH 1:* (UID BODY.PEEK[])",
    "search_from": 'UID SEARCH FROM "rossi"',
    "search_subject": 'UID SEARCH SUBJECT "invoice"',
    "sort_subject": "UID SORT (SUBJECT) UTF-8 ALL",
    "sort_from": "UID SORT (FROM REVERSE DATE) UTF-8 ALL",
    "thread": "UID THREAD REFERENCES UTF-8 ALL",
    "search_body_rare": f'UID SEARCH BODY "{corpus.RARE}"',
    "search_text_rare": f'UID SEARCH TEXT "{corpus.RARE}"',
}


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def inbound(server: Server, count: int, start: int) -> Figures:
    """SMTP over 16 connections until IMAP shows every message."""
    mail = [(servers.INBOUND[n % 20], raw) for n, raw in enumerate(corpus.mail(count, start))]
    readers = [Imap(server.imap, user, PASSWORD) for user in servers.INBOUND]
    before = sum(reader.messages() for reader in readers)
    cpu, begun = measure.cpu_seconds(server.roots), time.perf_counter()
    latencies = clients.send_all(server.smtp, mail, 16)
    accepted = time.perf_counter() - begun
    while sum(reader.messages() for reader in readers) < before + count:
        if time.perf_counter() - begun > 300:
            raise servers.BenchError(f"{server.name}: mail was accepted and is not there after 300 s")
        time.sleep(0.02)
    seconds = time.perf_counter() - begun
    used = measure.cpu_seconds(server.roots) - cpu
    for reader in readers:
        reader.close()
    return {
        "inbound": count / seconds,
        "inbound_accepted": count / accepted,
        "accept_p50": measure.median(latencies) * 1000,
        "accept_p99": measure.percentile(latencies, 99) * 1000,
        "inbound_cpu": used / count * 1000,
    }


def append(server: Server, count: int) -> Figures:
    """APPEND over one and over eight connections."""
    mail = corpus.mail(count)

    def work(user: str, part: Sequence[bytes]) -> None:
        client = Imap(server.imap, user, PASSWORD)
        for raw in part:
            client.run("APPEND INBOX", raw)
        client.close()

    figures = {}
    for connections in (1, 8):
        parts = [mail[n::connections] for n in range(connections)]
        users = servers.APPENDERS[:1] if connections == 1 else servers.APPENDERS[1:]
        threads = [threading.Thread(target=work, args=pair) for pair in zip(users, parts, strict=True)]
        begun = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        figures[f"append_{connections}"] = count / (time.perf_counter() - begun)
    return figures


def logins(server: Server, count: int = 400) -> Figures:
    """Connect, log in, leave; 16 at a time."""
    figures = {}
    for name, port, tls in (("login_plain", server.imap, False), ("login_tls", server.imaps, True)):

        def work(port: int = port, tls: bool = tls) -> None:
            for n in range(count // 16):
                Imap(port, servers.INBOUND[n % 20], PASSWORD, tls=tls).close()

        threads = [threading.Thread(target=work) for _ in range(16)]
        figures[name] = count // 16 * 16 / (_timed(lambda threads=threads: _run(threads)) / 1000)
    return figures


def _run(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def fill(server: Server, count: int) -> None:
    """Bring the reader's INBOX to so many messages."""
    client = Imap(server.imap, servers.READER, PASSWORD)
    for n in range(client.messages(), count):
        client.run("APPEND INBOX", corpus.message(n))
    client.close()


def _opened(server: Server) -> Imap:
    client = Imap(server.imap, servers.READER, PASSWORD)
    client.run("SELECT INBOX")
    return client


def read(server: Server, repeat: int) -> Figures:
    """The big operations on one large mailbox: the first time after the fill, and the median of later ones."""
    figures: Figures = {}
    for name, command in READS.items():
        times = []
        for _ in range(repeat + 1):
            client = _opened(server)
            times.append(_timed(lambda client=client, command=command: client.run(command)))
            client.close()
        figures[f"{name}_first"] = times[0]
        figures[name] = measure.median(times[1:])
    client = Imap(server.imap, servers.READER, PASSWORD)
    client.run("SELECT INBOX")
    figures["select"] = measure.median([_timed(lambda: client.run("SELECT INBOX")) for _ in range(20)])
    client.run("ENABLE QRESYNC")
    state = client.run("SELECT INBOX")
    known = [re.search(rb"\[%b (\d+)\]" % name, state) for name in (b"UIDVALIDITY", b"HIGHESTMODSEQ")]
    numbers = " ".join(found[1].decode() for found in known if found)
    resync = f"SELECT INBOX (QRESYNC ({numbers}))"
    figures["qresync"] = measure.median([_timed(lambda: client.run(resync)) for _ in range(20)])
    client.close()
    if program := shutil.which("mbsync"):
        figures["mbsync"] = measure.median([_pulled(server, program) for _ in range(3)])
    return figures


def _pulled(server: Server, program: str) -> float:
    """Seconds in which mbsync brings the whole INBOX into an empty Maildir."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "rc"
        config.write_text(
            f'FSync no\nIMAPAccount a\nHost 127.0.0.1\nPort {server.imap}\nUser "{servers.READER}"\nPass "{PASSWORD}"\n'
            "SSLType None\nAuthMechs LOGIN\nPipelineDepth 50\n\nIMAPStore r\nAccount a\n\n"
            f"MaildirStore l\nPath {folder}/m/\nInbox {folder}/m/INBOX\nSubFolders Verbatim\n\n"
            "Channel c\nFar :r:\nNear :l:\nPatterns INBOX\nCreate Near\nSync Pull\nSyncState *\n"
        )
        (Path(folder) / "m").mkdir()
        return _timed(lambda: subprocess.run([program, "-q", "-c", config, "c"], check=True, timeout=300)) / 1000


def write(server: Server, repeat: int) -> Figures:
    """STORE on all messages, MOVE of a thousand and back."""
    client = _opened(server)
    if b"Archive" not in client.run('LIST "" "*"'):
        client.run("CREATE Archive")
    stores, moves = [], []
    for _ in range(repeat):
        stores.append(_timed(lambda: client.run("STORE 1:* +FLAGS.SILENT (\\Flagged)")))
        client.run("STORE 1:* -FLAGS.SILENT (\\Flagged)")
        moves.append(_timed(lambda: client.run("MOVE 1:1000 Archive")))
        client.run("SELECT Archive")
        client.run("MOVE 1:* INBOX")
        client.run("SELECT INBOX")
    client.close()
    return {"store_all": measure.median(stores), "move_1000": measure.median(moves)}


def large(server: Server, count: int) -> Figures:
    """Work on one mailbox of `count` small messages, and before on a twentieth of them: what must not grow with it."""
    figures: Figures = {}
    client, other = (Imap(server.imap, servers.HOARDER, PASSWORD) for _ in range(2))
    for size, name in ((count // 20, "part"), (count, "whole")):
        begun = time.perf_counter()
        start = client.messages()
        for at in range(start, size, 100):
            client.append("INBOX", [corpus.note(n) for n in range(at, min(at + 100, size))])
        figures[f"fill_{name}"] = (size - start) / (time.perf_counter() - begun)
        last = f"{size - 49}:{size}"
        client.run("SELECT INBOX")

        def opened(client: Imap = client) -> float:
            client.run("SELECT Drafts")
            return _timed(lambda: client.run("SELECT INBOX"))

        def told(client: Imap = client, other: Imap = other) -> float:
            other.append("INBOX", [corpus.note(0)])
            begun = time.perf_counter()
            client.wait_exists()
            return max(0.05, (time.perf_counter() - begun) * 1000)

        if b"Drafts" not in client.run('LIST "" "*"'):
            client.run("CREATE Drafts")
        times: dict[str, list[float]] = {"select": [opened() for _ in range(5)]}
        for operation, command in (
            ("window", f"FETCH {last} (UID FLAGS ENVELOPE)"),
            ("search", f'UID SEARCH BODY "{corpus.RARE}"'),
            ("sort", "UID SORT (SUBJECT) UTF-8 ALL"),
            ("store_on", f"STORE {size} +FLAGS (\\Flagged)"),
            ("store_off", f"STORE {size} -FLAGS (\\Flagged)"),
        ):
            work = functools.partial(client.run, command)
            times[operation] = [_timed(work) for _ in range(5)]
        client.start_idle()
        times["notice"] = [told() for _ in range(5)]
        client.close()
        other.close()
        figures[f"selected_kb_{name}"] = _selected_kb(server)
        client, other = (Imap(server.imap, servers.HOARDER, PASSWORD) for _ in range(2))
        figures |= {f"{operation}_{name}": measure.median(found) for operation, found in times.items()}
    client.close()
    other.close()
    return figures


def _selected_kb(server: Server) -> float:
    """Memory of one more session that idles in the large mailbox, where others do already."""
    crowd: list[Imap] = []

    def enter(count: int) -> None:
        for _ in range(count):
            client = Imap(server.imap, servers.HOARDER, PASSWORD)
            client.run("SELECT INBOX")
            client.start_idle()
            crowd.append(client)
        time.sleep(1)

    server.restart()  # no heap that others have left shall hide what a session takes
    enter(2)  # what all sessions of the mailbox share
    before = measure.memory_kb(server.mail_process)
    enter(SELECTING)
    found = (measure.memory_kb(server.mail_process) - before) / SELECTING
    for client in crowd:
        client.close()
    return max(0.1, found)


def idle(server: Server, sessions: int, deliveries: int = 40) -> Figures:
    """Memory of an idling session, plain and TLS, and the time from the sender's 250 to the idler's EXISTS."""
    figures: Figures = {}
    for name, port, tls in (("idle_kb", server.imap, False), ("idle_tls_kb", server.imaps, True)):
        warm = Imap(port, servers.IDLER, PASSWORD, tls=tls)
        before = measure.memory_kb(server.mail_process)
        crowd = []
        for n in range(sessions):
            client = Imap(port, servers.INBOUND[n % 20], PASSWORD, tls=tls)
            client.run("SELECT INBOX")
            client.start_idle()
            crowd.append(client)
        time.sleep(1)
        figures[name] = max(0.1, (measure.memory_kb(server.mail_process) - before) / sessions)
        for client in [*crowd, warm]:
            client.close()
    watcher = Imap(server.imap, servers.IDLER, PASSWORD)
    watcher.run("SELECT INBOX")
    watcher.start_idle()
    waits = []
    for n in range(deliveries):
        clients.send_all(server.smtp, [(servers.IDLER, corpus.message(n))], 1)
        begun = time.perf_counter()
        watcher.wait_exists()
        waits.append((time.perf_counter() - begun) * 1000)
    watcher.close()
    figures["idle_notice"] = max(0.05, measure.median(waits))
    return figures
