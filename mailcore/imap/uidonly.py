"""UIDONLY (RFC 9586): what a client that wants UIDs only may not say any more."""

from __future__ import annotations

from mailcore.imap.errors import bad
from mailcore.imap.registry import Spec
from mailcore.wire.imap.commands import Args, Command, EsearchArgs, SearchArgs, SelectArgs, ThreadArgs
from mailcore.wire.imap.search_key import SearchKey, uses_sequence_numbers


def check(spec: Spec, command: Command) -> None:
    """Refuse sequence numbers in whatever place. Raises Refused (BAD, UIDREQUIRED)."""
    args = command.args
    key = _searched(args)
    if (
        spec.uses_seqs
        or (key is not None and uses_sequence_numbers(key))
        or (isinstance(args, SelectArgs) and args.qresync is not None and args.qresync.seq_match is not None)
    ):
        raise bad("Sequence numbers are not used after ENABLE UIDONLY", "UIDREQUIRED")


def _searched(args: Args) -> SearchKey | None:
    match args:
        case SearchArgs() | ThreadArgs():
            return args.key
        case EsearchArgs():
            return args.search.key
    return None
