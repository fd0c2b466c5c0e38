"""CANCELUPDATE: no more updates of results (RFC 5267 §4.3.5)."""

from __future__ import annotations

from typing import cast

from mailcore.imap.errors import bad
from mailcore.imap.registry import SELECTED, Done, command
from mailcore.imap.session import Session
from mailcore.wire.imap.commands import Command, TagsArgs


@command("CANCELUPDATE", state=SELECTED)
async def cancelupdate(session: Session, command: Command) -> Done:
    """Stop telling of changes in the results of these commands: of all of them, or of none if one is unknown."""
    tags = cast(TagsArgs, command.args).tags
    contexts = session.view.contexts
    for tag in tags:
        if tag not in contexts:
            raise bad("There is no updated search of that tag")
    for tag in dict.fromkeys(tags):
        del contexts[tag]
    return Done("No further updates")
