"""Email/query (RFC 8621 §4.4)."""

from __future__ import annotations

from mailcore import db
from mailcore.jmap import filters, ids, limits, values
from mailcore.jmap.context import MAIL, Context, Json, method
from mailcore.jmap.methods.common import no_query_changes, window
from mailcore.store import search

_FILTER = ("filter", "sort", "collapseThreads", "calculateTotal")


@method("Email/query", MAIL, *_FILTER, "position", "anchor", "anchorOffset", "limit")
async def query(context: Context, args: Json) -> Json:
    """Ids of the emails that match, in order; with collapseThreads only the first of each thread."""
    criterion = filters.criterion(args.get("filter"))
    order = filters.sort(args.get("sort"))
    collapse = values.boolean(args, "collapseThreads")
    with_total = values.boolean(args, "calculateTotal")
    asked = values.integer(args, "limit")
    limit = limits.MAX_QUERY if asked is None else min(asked, limits.MAX_QUERY)
    position = values.integer(args, "position", 0, lo=-(2**53) + 1) or 0
    by_anchor = values.text(args, "anchor") is not None
    account_id = context.account_id

    async def look() -> tuple[str, int, list[str], int]:
        at = position
        async with db.read() as tx:
            state = await context.state(tx)
            if by_anchor or at < 0:
                rows, total = await search.emails(tx, account_id, criterion, order, None, 0, collapse)
                found = [ids.email(number) for number, _ in rows]
                return state, *window({**args, "limit": limit}, found), total
            rows, total = await search.emails(tx, account_id, criterion, order, limit, at, collapse)
            if with_total and not rows and (at or not limit):
                _, total = await search.emails(tx, account_id, criterion, order, 1, 0, collapse)
            return state, at, [ids.email(number) for number, _ in rows], total

    # A page of a folder is nothing to wait for.
    work = look() if filters.is_listing(criterion) else context.search(look())
    state, position, part, total = await work
    answer: Json = {"queryState": state, "canCalculateChanges": False, "position": position, "ids": part}
    if with_total:
        answer["total"] = total
    if asked is None or asked > limit:
        answer["limit"] = limit
    return answer


@method("Email/queryChanges", MAIL, *_FILTER, "sinceQueryState", "maxChanges", "upToId")
async def query_changes(context: Context, args: Json) -> Json:
    raise no_query_changes(args)
