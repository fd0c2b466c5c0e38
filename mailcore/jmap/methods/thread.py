"""Thread/get and /changes (RFC 8621 §3)."""

from __future__ import annotations

from mailcore import db
from mailcore.errors import MailError
from mailcore.jmap import ids, queries
from mailcore.jmap.context import MAIL, Context, Json, method
from mailcore.jmap.errors import MethodError
from mailcore.jmap.methods.common import cannot_calculate, max_changes, since_state, wanted_ids, wanted_properties
from mailcore.store import changes, fetch

PROPERTIES = frozenset({"id", "emailIds"})


@method("Thread/get", MAIL, "ids", "properties")
async def get(context: Context, args: Json) -> Json:
    """The emails of threads, oldest first."""
    wanted = wanted_ids(args)
    if wanted is None:
        raise MethodError("requestTooLarge", "name the threads by their ids")
    properties = wanted_properties(args, PROPERTIES, PROPERTIES)
    numbers, missing = ids.numbers_of(wanted, "T")
    async with db.read() as tx:
        state = await context.state(tx)
        found = await queries.threads(tx, context.account_id, numbers)
    threads = []
    for number, given in numbers.items():
        if number in found:
            row: Json = {"id": given, "emailIds": [ids.email(n) for n in found[number]]}
            threads.append({name: row[name] for name in row if name in properties})
        else:
            missing.append(given)
    return {"state": state, "list": threads, "notFound": missing}


@method("Thread/changes", MAIL, "sinceState", "maxChanges")
async def thread_changes(context: Context, args: Json) -> Json:
    """Threads whose emails changed in any way; more may be named than have other members now."""
    since = since_state(args)
    async with db.read() as tx:
        try:
            found = await changes.emails(tx, context.account_id, since, max_changes(args))
        except MailError as error:
            raise cannot_calculate(error) from None
        touched = [*found.created, *found.updated, *found.destroyed]
        rows = await fetch.messages(tx, context.account_id, touched, ("thread_id",))
        if len(rows) < len(touched):
            # Removed for good, and with it the knowledge which thread it was in.
            raise MethodError("cannotCalculateChanges", "that state is too long ago")
        thread_ids = sorted({row[0] for row in rows})
        alive = await queries.threads(tx, context.account_id, thread_ids)
        first = await fetch.messages(tx, context.account_id, [min(m) for m in alive.values()], ("id", "created_modseq"))
    born: dict[int, int] = dict(first)
    created: list[str] = []
    updated: list[str] = []
    for thread_id, members in alive.items():
        (created if born.get(min(members), 0) > since else updated).append(ids.thread(thread_id))
    return {
        "oldState": str(since),
        "newState": str(found.state),
        "hasMoreChanges": found.has_more,
        "created": created,
        "updated": updated,
        "destroyed": [ids.thread(n) for n in thread_ids if n not in alive],
    }
