"""From a frame to a typed command: the table of commands and their argument grammars."""

from __future__ import annotations

from collections.abc import Sequence

from mailcore.wire.imap.commands import AppendArgs, Command
from mailcore.wire.imap.frames import Frame, Piece


def parse_command(frame: Frame, *, utf8: bool = False) -> Command:
    """Parse a frame. `utf8`: the client enabled IMAP4rev2 or UTF8=ACCEPT, so names are UTF-8 instead of modified UTF-7.

    Raises ImapSyntaxError for an unknown command or arguments that do not fit; nothing else.
    """
    raise NotImplementedError


def command_name(frame: Frame) -> str:
    """The command's name in upper case ("UID FETCH"), "" if there is none: for logs and for state checks before parsing."""
    raise NotImplementedError


def is_message_literal(pieces: Sequence[Piece]) -> bool:
    """Whether the literal announced after these pieces is a message of APPEND (not its mailbox name)."""
    raise NotImplementedError


def parse_append_head(pieces: Sequence[Piece], *, utf8: bool = False) -> AppendArgs:
    """Parse an APPEND up to a literal that is only announced: its last message then has no part yet.

    For LiteralOffer: check mailbox, flags and date before the client sends the octets. Raises ImapSyntaxError.
    """
    raise NotImplementedError
