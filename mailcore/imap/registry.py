"""The table of commands: what each needs and what it may do, so that the session's rules are data.

A handler is `async def name(session, command) -> Done`; it sends its untagged answers through the session and raises
MailError, ImapSyntaxError or errors.Refused for anything else than OK. None: it has sent the tagged answer too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mailcore.imap.session import Session
    from mailcore.wire.imap.commands import Command


class State(IntFlag):
    """The states of RFC 9051 §3, as bits, so that a command can name several."""

    NOT_AUTHENTICATED = 1
    AUTHENTICATED = 2
    SELECTED = 4
    LOGOUT = 8


NOT_AUTHENTICATED = State.NOT_AUTHENTICATED
SELECTED = State.SELECTED
LOGGED_IN = State.AUTHENTICATED | State.SELECTED
ANY = State.NOT_AUTHENTICATED | LOGGED_IN


@dataclass(frozen=True, slots=True)
class Done:
    """The tagged OK: its words and its response code."""

    text: str
    code: bytes | None = None


Handler = Callable[["Session", "Command"], Awaitable[Done | None]]


@dataclass(frozen=True, slots=True)
class Spec:
    """One command. `uses_seqs`: its arguments are sequence numbers, so none may shift before it has run.

    `may_expunge`: EXPUNGE may be sent while it runs and at its end. `refresh`: always ask the store what is new
    before the tagged answer, even when nobody said that something is.
    """

    name: str
    run: Handler
    state: State
    uses_seqs: bool
    may_expunge: bool
    refresh: bool


COMMANDS: dict[str, Spec] = {}


def command(
    *names: str, state: State, uses_seqs: bool = False, may_expunge: bool = True, refresh: bool = False
) -> Callable[[Handler], Handler]:
    """Register a handler. For the UID form of a name, `uses_seqs` is False and `may_expunge` True (RFC 9051 §7.5.1)."""

    def register(run: Handler) -> Handler:
        for name in names:
            uid = name.startswith("UID ")
            if name in COMMANDS:
                raise ValueError(f"{name} is registered twice")
            COMMANDS[name] = Spec(name, run, state, uses_seqs and not uid, may_expunge or uid, refresh)
        return run

    return register
