r"""Plays protocol transcripts: text files that say what clients send and what they must be answered.

A script is a list of lines; blank lines and lines that start with `#` are comments.

    accounts alice bob          make accounts; $alice and $bob become their addresses, $password their password;
                                eve@elsewhere is one of another domain, called $eve
    message NAME                a message up to the line `end`: {{NAME}} becomes a literal of it
    1 connect [tls] [alice]     open client 1; with a name, log in; the greeting is consumed
    1> a SELECT INBOX           send a line (CRLF is added)
    1>> abc                     send exactly these octets
    1< a OK ...                 expect a line
    1= * 3 EXPUNGE              expect a line, after the other `=` lines of the group
    1? * 0 RECENT               a line that may come
    1 eof                       the server closes
    1 close                     hang up
    1 starttls                  start TLS
    1 quiet                     nothing comes for a moment
    deliver alice NAME          put a message into alice's INBOX, as SMTP does
    quota alice 4096 10         limit alice's mail to so many octets and messages; - is no limit
    let x=...                   set a variable
    again N ... done            the lines between, N times (counter $n from 1)

Expected lines that follow each other for one client are a group: they may come in any order, nothing else may come, and
the group ends when all have come. `...` stands for anything. `$name` is replaced by the variable, or, when it is not
set, takes what stands there (a number, an atom). {=text=} is a literal of the text, with its length; {{NAME}} one of a
message; {=+text=} and {{NAME+}} are their non-synchronizing forms.
In all lines \r \n \t \0 \xNN are octets.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

# For what never happens, and for what must not happen.
TIMEOUT = 60.0
QUIET = 0.08

_LITERAL = re.compile(rb"~?\{(\d+)\}\r\n\Z")
_ESCAPE = re.compile(rb"\\(r|n|t|0|x[0-9a-fA-F]{2})")
_VARIABLE = re.compile(rb"\$(?:\{(\w+)\}|(\w+))")
_MESSAGE = re.compile(rb"\{\{(\w+)(\+?)\}\}")
_INLINE = re.compile(rb"\{=(\+?)(.*?)=\}", re.S)
_STEP = re.compile(r"(\w+)(>>|>|<|=|\?| )\s?(.*)")
_OCTETS = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0"}


class Mismatch(AssertionError):
    """The server said something else than the script."""


@dataclass
class World:
    """What scripts need from the test that plays them."""

    host: str
    port: int
    tls_port: int
    account: Callable[[str], tuple[str, str]]
    """Makes an account, returns (address, password)."""
    deliver: Callable[[str, bytes], None]
    """Delivers a message to an account by name."""
    quota: Callable[[str, int | None, int | None], None]
    """Limits an account's mail to so many octets and messages."""


class Client:
    """One connection; reads whole responses, literals included."""

    def __init__(self, world: World, tls: bool) -> None:
        self.socket: socket.socket = socket.create_connection(
            (world.host, world.tls_port if tls else world.port), TIMEOUT
        )
        if tls:
            self.start_tls()
        self.buffer = b""
        self.log: list[bytes] = []

    def start_tls(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # loads no authorities
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.socket = context.wrap_socket(self.socket)

    def send(self, data: bytes) -> None:
        self.log.append(b"> " + data)
        self.socket.sendall(data)

    def receive(self, timeout: float = TIMEOUT) -> bytes | None:
        """The next response without its CRLF; None at the end of the connection. Raises TimeoutError."""
        whole, start = b"", 0
        while True:
            end = self.buffer.find(b"\r\n", start)
            while end < 0:
                if not self._more(timeout):
                    if self.buffer:
                        raise Mismatch(f"the server closed in the middle of {self.buffer!r}")
                    return None
                end = self.buffer.find(b"\r\n", start)
            whole = self.buffer[: end + 2]
            literal = _LITERAL.search(whole)
            if literal is None:
                self.buffer = self.buffer[end + 2 :]
                self.log.append(b"< " + whole)
                return whole[:-2]
            start = end + 2 + int(literal[1])
            while len(self.buffer) < start:
                if not self._more(timeout):
                    raise Mismatch("the server closed in the middle of a literal")

    def _more(self, timeout: float) -> bool:
        self.socket.settimeout(timeout)
        try:
            data = self.socket.recv(65536)
        except ConnectionError:
            return False
        self.buffer += data
        return bool(data)

    def story(self) -> str:
        return "\n".join(line.decode("utf-8", "backslashreplace").rstrip() for line in self.log[-25:])


@dataclass
class Player:
    """Plays one script."""

    world: World
    clients: dict[str, Client] = field(default_factory=dict)
    variables: dict[str, bytes] = field(default_factory=dict)
    messages: dict[str, bytes] = field(default_factory=dict)

    def play(self, path: Path) -> None:
        __tracebackhide__ = True
        lines = path.read_text().split("\n")
        try:
            self._lines(path.name, lines, 0, len(lines))
            for name, client in self.clients.items():
                if client.buffer:
                    raise Mismatch(f"{path.name}: client {name} was sent more: {client.buffer!r}")
        finally:
            for client in self.clients.values():
                client.socket.close()

    def _lines(self, script: str, lines: list[str], at: int, end: int) -> None:
        __tracebackhide__ = True
        while at < end:
            line = lines[at].rstrip()
            number = at + 1
            at += 1
            if not line or line.startswith("#"):
                continue
            word, _, rest = line.partition(" ")
            if word == "accounts":
                for name in rest.split():
                    address, password = self.world.account(name)
                    self.variables |= {name.partition("@")[0]: address.encode(), "password": password.encode()}
            elif word == "message":
                stop = lines.index("end", at)
                text = "".join(f"{one}\r\n" for one in lines[at:stop])
                self.messages[rest] = _unescape(text.encode())
                at = stop + 1
            elif word == "deliver":
                name, message = rest.split()
                self.world.deliver(name, self.messages[message])
            elif word == "quota":
                name, *numbers = rest.split()
                octets, messages = (None if number == "-" else int(number) for number in (*numbers, "-")[:2])
                self.world.quota(name, octets, messages)
            elif word == "let":
                name, _, value = rest.partition("=")
                self.variables[name] = self._fill(value)
            elif word == "again":
                stop = lines.index("done", at)
                for n in range(1, int(rest) + 1):
                    self.variables["n"] = str(n).encode()
                    self._lines(script, lines, at, stop)
                at = stop + 1
            else:
                step = _STEP.fullmatch(line)
                if step is None:
                    raise ValueError(f"{script}:{number}: not understood: {line}")
                client, sign, text = step.groups()
                if sign in "<=?":
                    group = [(number, sign, text)]
                    while (
                        at < end
                        and (more := _STEP.fullmatch(lines[at].rstrip()))
                        and more[1] == client
                        and more[2] in "<=?"
                    ):
                        group.append((at + 1, more[2], more[3]))
                        at += 1
                    self._expect(script, client, group)
                else:
                    self._do(script, number, client, sign, text)

    def _do(self, script: str, number: int, name: str, sign: str, text: str) -> None:
        __tracebackhide__ = True
        where = f"{script}:{number}"
        if sign == " " and text.startswith("connect"):
            words = text.split()[1:]
            client = self.clients[name] = Client(self.world, "tls" in words)
            self._greeting(client, [word for word in words if word != "tls"])
            return
        client = self.clients[name]
        if sign == ">":
            client.send(self._fill(text) + b"\r\n")
        elif sign == ">>":
            client.send(self._fill(text))
        elif text == "close":
            client.socket.close()
        elif text == "starttls":
            client.start_tls()
        elif text == "eof":
            if (line := client.receive()) is not None:
                raise Mismatch(
                    f"{where}: expected the end of client {name}'s connection, got {line!r}\n{client.story()}"
                )
        elif text == "quiet":
            try:
                line = client.receive(QUIET)
            except TimeoutError:
                return
            raise Mismatch(f"{where}: expected silence for client {name}, got {line!r}\n{client.story()}")
        else:
            raise ValueError(f"{where}: not understood: {text}")

    def _greeting(self, client: Client, names: list[str]) -> None:
        greeting = client.receive()
        if greeting is None or not greeting.startswith(b"* OK "):
            raise Mismatch(f"no greeting: {greeting!r}")
        for name in names:
            client.send(self._fill(f'login LOGIN "${name}" "$password"\r\n'))
            answer = client.receive()
            if answer is None or not answer.startswith(b"login OK "):
                raise Mismatch(f"{name} could not log in: {answer!r}")

    def _expect(self, script: str, name: str, group: list[tuple[int, str, str]]) -> None:
        __tracebackhide__ = True
        client = self.clients[name]
        waiting = list(group)
        while any(sign != "?" for _, sign, _ in waiting):
            try:
                line = client.receive()
            except TimeoutError:
                line = None
            if line is None or not self._take(line, waiting):
                wanted = "\n".join(f"  {script}:{number}: {text}" for number, _, text in waiting)
                got = "nothing more" if line is None else repr(line)
                raise Mismatch(f"client {name} got {got}\nexpected\n{wanted}\nafter\n{client.story()}")

    def _take(self, line: bytes, waiting: list[tuple[int, str, str]]) -> bool:
        ordered = False
        for entry in waiting:
            if entry[1] == "=":
                if ordered:
                    continue
                ordered = True
            if self._matches(entry[2], line):
                waiting.remove(entry)
                return True
        return False

    def _matches(self, pattern: str, line: bytes) -> bool:
        names: list[str] = []
        regex = b""
        for n, part in enumerate(self._fill(pattern, keep_unknown=True).split(b"...")):
            regex += b".*" if n else b""
            at = 0
            for match in _VARIABLE.finditer(part):
                variable = (match[1] or match[2]).decode()
                regex += re.escape(part[at : match.start()]) + rb'([^\s()\[\]{}"]+)'
                names.append(variable)
                at = match.end()
            regex += re.escape(part[at:])
        found = re.fullmatch(regex, line, re.S)
        if found is None:
            return False
        self.variables.update(zip(names, found.groups(), strict=True))
        return True

    def _fill(self, text: str, *, keep_unknown: bool = False) -> bytes:
        octets = _unescape(text.encode())

        def variable(match: re.Match[bytes]) -> bytes:
            name = (match[1] or match[2]).decode()
            if name in self.variables:
                return self.variables[name]
            if keep_unknown:
                return match[0]
            return match[0] if match[1] is None else _missing(name)

        def message(match: re.Match[bytes]) -> bytes:
            body = self.messages[match[1].decode()]
            return b"{%d%b}\r\n%b" % (len(body), match[2], body)

        def inline(match: re.Match[bytes]) -> bytes:
            return b"{%d%b}\r\n%b" % (len(match[2]), match[1], match[2])

        return _MESSAGE.sub(message, _INLINE.sub(inline, _VARIABLE.sub(variable, octets)))


def _missing(name: str) -> bytes:
    raise ValueError(f"the variable {name} is not set")


def _unescape(octets: bytes) -> bytes:
    return _ESCAPE.sub(lambda match: _OCTETS.get(match[1]) or bytes([int(match[1][1:], 16)]), octets)
