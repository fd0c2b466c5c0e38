"""EmailSubmission/get, /changes, /query (RFC 8621 §7)."""

from __future__ import annotations

from typing import Any

from mailcore import db
from mailcore.jmap import submissions, values
from mailcore.jmap.context import SUBMISSION, Context, Json, method
from mailcore.jmap.errors import MethodError, bad_arguments
from mailcore.jmap.methods.common import no_query_changes, wanted_ids, wanted_properties, window

PROPERTIES = frozenset(
    {
        *("id", "identityId", "emailId", "threadId", "envelope", "sendAt", "undoStatus", "deliveryStatus"),
        *("dsnBlobIds", "mdnBlobIds"),
    }
)
MAX_LISTED = 1_000


@method("EmailSubmission/get", SUBMISSION, "ids", "properties")
async def get(context: Context, args: Json) -> Json:
    """Submissions by id; with null those that the queue still knows of."""
    wanted = wanted_ids(args)
    properties = wanted_properties(args, PROPERTIES, PROPERTIES)
    async with db.read() as tx:
        state = await submissions.state(tx, context.account_id)
        if wanted is None:
            wanted = [
                submissions.submission_id(t) for t in await submissions.newest(tx, context.account_id, MAX_LISTED)
            ]
        traces = {one: trace_id for one in wanted if (trace_id := submissions.trace_id_of(one))}
        found = await submissions.load(tx, context.account_id, list(traces.values()))
    rows = {one: found[trace_id].shown() for one, trace_id in traces.items() if trace_id in found}
    return {
        "state": state,
        "list": [{name: value for name, value in row.items() if name in properties} for row in rows.values()],
        "notFound": [one for one in wanted if one not in rows],
    }


@method("EmailSubmission/changes", SUBMISSION, "sinceState", "maxChanges")
async def submission_changes(context: Context, args: Json) -> Json:
    since = values.text(args, "sinceState")
    async with db.read() as tx:
        state = await submissions.state(tx, context.account_id)
    if since != state:
        raise MethodError("cannotCalculateChanges", "ask for the submissions anew")
    nothing: Json = {"created": [], "updated": [], "destroyed": []}
    return {"oldState": state, "newState": state, "hasMoreChanges": False, **nothing}


@method(
    *("EmailSubmission/query", SUBMISSION, "filter", "sort", "position", "anchor", "anchorOffset", "limit"),
    "calculateTotal",
)
async def query(context: Context, args: Json) -> Json:
    """Submissions that the queue still knows of, the newest first unless `sort` says otherwise."""
    async with db.read() as tx:
        state = await submissions.state(tx, context.account_id)
        newest = await submissions.newest(tx, context.account_id, MAX_LISTED)
        found = await submissions.load(tx, context.account_id, newest)
    rows = [row for one in newest if one in found and _matches(row := found[one].shown(), args.get("filter"))]
    _sort(rows, args.get("sort"))
    position, part = window(args, [row["id"] for row in rows])
    answer: Json = {"queryState": state, "canCalculateChanges": False, "position": position, "ids": part}
    if values.boolean(args, "calculateTotal"):
        answer["total"] = len(rows)
    return answer


def _sort(rows: list[Json], given: Any) -> None:
    names = {"emailId": "emailId", "threadId": "threadId", "sentAt": "sendAt", "sendAt": "sendAt"}
    if given is not None and not (isinstance(given, list) and all(isinstance(item, dict) for item in given)):
        raise bad_arguments("sort must be a list of comparators")
    for item in reversed(given or []):
        if not isinstance(item.get("property"), str) or item["property"] not in names:
            raise MethodError("unsupportedSort")
        rows.sort(key=lambda row: row[names[item["property"]]], reverse=item.get("isAscending") is False)


def _matches(row: Json, condition: Any, depth: int = 0) -> bool:
    if condition is None:
        return True
    if not isinstance(condition, dict) or depth > 20:
        raise bad_arguments("filter must be a condition or an operator")
    if "operator" in condition:
        inner = condition.get("conditions")
        if not isinstance(inner, list) or condition["operator"] not in ("AND", "OR", "NOT"):
            raise bad_arguments("an operator is AND, OR or NOT and has a list of conditions")
        results = [_matches(row, item, depth + 1) for item in inner]
        if condition["operator"] == "AND":
            return all(results)
        return any(results) is (condition["operator"] == "OR")
    return all(_satisfies(row, name, value) for name, value in condition.items())


def _satisfies(row: Json, name: str, value: Any) -> bool:
    lists = {"identityIds": "identityId", "emailIds": "emailId", "threadIds": "threadId"}
    if name in lists and isinstance(value, list):
        return row[lists[name]] in value
    if name == "undoStatus":
        return bool(row["undoStatus"] == value)
    if name in ("before", "after"):
        moment = values.utc(values.parse_date(value, name))
        return bool(row["sendAt"] < moment) if name == "before" else bool(row["sendAt"] >= moment)
    raise MethodError("unsupportedFilter", f"submissions cannot be filtered by {name[:100]}")


@method(
    *("EmailSubmission/queryChanges", SUBMISSION, "filter", "sort", "sinceQueryState", "maxChanges", "upToId"),
    "calculateTotal",
)
async def query_changes(context: Context, args: Json) -> Json:
    raise no_query_changes(args)
