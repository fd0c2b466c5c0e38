"""What one client may cost: times, counts and sizes of the IMAP server, by name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, counts and octets."""

    login: float = 60.0  # from the connection to a successful login
    idle: float = 1_800.0  # without a word from the client (RFC 9051 §5.4: at least 30 minutes)
    pace: int = 4_096  # octets of an unfinished command that count as a word
    stalled: float = 300.0  # that a client may leave our answers unread
    shutdown: float = 5.0  # that a running command may take when the server stops
    failures: int = 3  # failed logins on one connection
    errors: int = 10  # commands in a row that were BAD before login
    errors_logged_in: int = 50  # … and after it
    connections: int = 20_000
    per_address: int = 200  # connections before login of one IPv4 address or IPv6 /64
    per_account: int = 100  # sessions
    uploads: int = 128 * 1024 * 1024  # octets of appended messages in memory at a time, whole process
    tails: int = 32 * 1024 * 1024  # octets of FETCH answers that are remembered, whole process
    tails_kept: float = 300.0  # seconds after their last use
    orders: int = 16 * 1024 * 1024  # octets of sorted and threaded mailboxes that are remembered, whole process
    messages: int = 1_000_000  # that one FETCH, STORE, COPY or MOVE may handle
    threads: int = 250_000  # messages that one THREAD may put into order: about a kilobyte of memory each meanwhile
    searches: int = 8  # at a time, whole process: half of the pool's connections
    search: float = 60.0  # seconds that a search may take when its turn has come
    at_once: int = 3  # searches, and as many commands that change much, of one account at a time
    progress: float = 10.0  # seconds after which, and at which intervals, a client is told that we still work
    spool: int = 1024 * 1024  # an appended message beyond this waits in a file for its end
    notify: int = 5_000  # mailboxes that one session may watch by NOTIFY
    thread: int = 100 * 1024  # a message beyond this is parsed in a thread
    output: int = 512 * 1024  # unsent octets at which a session stops producing
    input: int = 64 * 1024  # unread octets at which a busy session stops reading, and a stranger is sent away
