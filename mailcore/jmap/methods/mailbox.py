"""Mailbox/get, /changes, /query (RFC 8621 §2)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from mailcore import db
from mailcore.errors import MailError
from mailcore.jmap import ids, queries, values
from mailcore.jmap.context import MAIL, Context, Json, method
from mailcore.jmap.errors import MethodError, bad_arguments
from mailcore.jmap.methods.common import (
    cannot_calculate,
    max_changes,
    no_query_changes,
    since_state,
    wanted_ids,
    wanted_properties,
    window,
)
from mailcore.store import changes, mailboxes
from mailcore.store.mailboxes import INBOX, SEPARATOR, Mailbox

ROLES = {
    "\\All": "all",
    "\\Archive": "archive",
    "\\Drafts": "drafts",
    "\\Flagged": "flagged",
    "\\Important": "important",
    "\\Junk": "junk",
    "\\Sent": "sent",
    "\\Trash": "trash",
}
USES = {role: use for use, role in ROLES.items()}
ORDER = {"inbox": 1, "drafts": 2, "sent": 3, "archive": 4, "junk": 5, "trash": 6}
OTHERS = 10

COUNTS = frozenset({"totalEmails", "unreadEmails", "totalThreads", "unreadThreads"})
PROPERTIES = COUNTS | {"id", "name", "parentId", "role", "sortOrder", "myRights", "isSubscribed"}

# Threads of a mailbox by its highest modseq: counting reads every entry, and most mailboxes rest most of the time.
MAX_REMEMBERED = 50_000
_totals: OrderedDict[tuple[int, int, int, int], int] = OrderedDict()


def role_of(mailbox: Mailbox) -> str | None:
    return "inbox" if mailbox.name == INBOX else ROLES.get(mailbox.special_use or "")


@method("Mailbox/get", MAIL, "ids", "properties")
async def get(context: Context, args: Json) -> Json:
    """Mailboxes with their counts; all of them when `ids` is null."""
    wanted = wanted_ids(args)
    properties = wanted_properties(args, PROPERTIES, PROPERTIES)
    async with db.read() as tx:
        state = await context.state(tx)
        everything = await mailboxes.all(tx, context.account_id)
        by_id = {ids.mailbox(mailbox.id): mailbox for mailbox in everything}
        if wanted is None:
            wanted = list(by_id)
        chosen = [by_id[one] for one in wanted if one in by_id]
        counts = await _counts(tx, context.account_id, everything, chosen, properties) if properties & COUNTS else {}
    by_name = {mailbox.name: mailbox for mailbox in everything}
    return {
        "state": state,
        "list": [_shown(mailbox, by_name, counts, properties) for mailbox in chosen],
        "notFound": [one for one in wanted if one not in by_id],
    }


def _shown(mailbox: Mailbox, by_name: dict[str, Mailbox], counts: dict[int, Json], properties: frozenset[str]) -> Json:
    parent_name, _, name = mailbox.name.rpartition(SEPARATOR)
    parent = by_name.get(parent_name) if parent_name else None
    if parent is None:
        name = mailbox.name  # an orphan keeps its whole name
    role = role_of(mailbox)
    ours = role != "inbox"
    found: Json = {
        "id": ids.mailbox(mailbox.id),
        "name": name,
        "parentId": ids.mailbox(parent.id) if parent else None,
        "role": role,
        "sortOrder": ORDER.get(role or "", OTHERS),
        "isSubscribed": mailbox.subscribed,
        "myRights": {
            **dict.fromkeys(("mayReadItems", "mayAddItems", "mayRemoveItems", "maySetSeen", "maySetKeywords"), True),
            "mayCreateChild": True,
            "mayRename": ours,
            "mayDelete": ours,
            "maySubmit": True,
        },
        **counts.get(mailbox.id, {}),
    }
    return {name: found[name] for name in found if name in properties}


async def _counts(
    tx: db.Tx, account_id: int, everything: Sequence[Mailbox], chosen: Sequence[Mailbox], properties: frozenset[str]
) -> dict[int, Json]:
    unread: dict[int, tuple[int, int]] = {}
    totals: dict[int, int] = {}
    if properties & {"unreadEmails", "unreadThreads"}:
        trash = next((mailbox.id for mailbox in everything if mailbox.special_use == "\\Trash"), None)
        unread = await queries.unread(tx, account_id, [m.id for m in everything if m.unseen], trash)
    if "totalThreads" in properties:
        totals = await _thread_totals(tx, account_id, chosen)
    found = {}
    for mailbox in chosen:
        emails, threads = unread.get(mailbox.id, (0, 0))
        found[mailbox.id] = {
            "totalEmails": mailbox.messages - mailbox.deleted,
            "unreadEmails": emails,
            "totalThreads": totals.get(mailbox.id, 0),
            "unreadThreads": threads,
        }
    return found


async def _thread_totals(tx: db.Tx, account_id: int, chosen: Sequence[Mailbox]) -> dict[int, int]:
    keys = {m.id: (account_id, m.id, m.uidvalidity, m.highest_modseq) for m in chosen if m.messages}
    missing = [number for number, key in keys.items() if key not in _totals]
    for number, total in (await queries.thread_totals(tx, account_id, missing)).items():
        _totals[keys[number]] = total
    while len(_totals) > MAX_REMEMBERED:
        _totals.popitem(last=False)
    return {number: _totals.get(key, 0) for number, key in keys.items()}


@method("Mailbox/changes", MAIL, "sinceState", "maxChanges")
async def mailbox_changes(context: Context, args: Json) -> Json:
    """Mailboxes that changed; `updatedProperties` says when only counts did."""
    since = since_state(args)
    max_changes(args)  # there are never so many mailboxes that the answer must be cut
    async with db.read() as tx:
        try:
            found, counts_only = await changes.mailbox_list(tx, context.account_id, since)
        except MailError as error:
            raise cannot_calculate(error) from None
    return {
        "oldState": str(since),
        "newState": str(found.state),
        "hasMoreChanges": False,
        "created": [ids.mailbox(n) for n in found.created],
        "updated": [ids.mailbox(n) for n in found.updated],
        "destroyed": [ids.mailbox(n) for n in found.destroyed],
        "updatedProperties": sorted(COUNTS) if counts_only else None,
    }


@method(
    *("Mailbox/query", MAIL, "filter", "sort", "position", "anchor", "anchorOffset", "limit", "calculateTotal"),
    *("sortAsTree", "filterAsTree"),
)
async def query(context: Context, args: Json) -> Json:
    """Mailbox ids by filter and order (RFC 8621 §2.3); an account has few enough to do it here."""
    async with db.read() as tx:
        state = await context.state(tx)
        everything = await mailboxes.all(tx, context.account_id)
    by_name = {mailbox.name: mailbox for mailbox in everything}
    rows = {m.id: _shown(m, by_name, {}, PROPERTIES) for m in everything}
    kept = {number for number, row in rows.items() if _matches(row, args.get("filter"))}
    if values.boolean(args, "filterAsTree"):
        kept = {number for number in kept if _ancestors(rows, number) <= kept}
    order = _sorted(list(rows.values()), args)
    found = [row["id"] for row in order if ids.number_of(row["id"], "F") in kept]
    position, part = window(args, found)
    answer: Json = {"queryState": state, "canCalculateChanges": False, "position": position, "ids": part}
    if values.boolean(args, "calculateTotal"):
        answer["total"] = len(found)
    return answer


def _ancestors(rows: dict[int, Json], number: int) -> set[int]:
    found: set[int] = set()
    parent = ids.number_of(rows[number]["parentId"], "F")
    while parent is not None and parent not in found:
        found.add(parent)
        parent = ids.number_of(rows[parent]["parentId"], "F")
    return found


def _sorted(rows: list[Json], args: Json) -> list[Json]:
    comparators = args.get("sort") or [{"property": "sortOrder"}, {"property": "name"}]
    if not isinstance(comparators, list) or not all(isinstance(item, dict) for item in comparators):
        raise bad_arguments("sort must be a list of comparators")
    for item in reversed(comparators):
        name = item.get("property")
        if name not in ("name", "sortOrder", "parent/name"):
            raise MethodError("unsupportedSort")
        rows.sort(key=lambda row: _sort_value(row, name), reverse=item.get("isAscending") is False)
    if not values.boolean(args, "sortAsTree"):
        return rows
    children: dict[str | None, list[Json]] = {}
    for row in rows:
        children.setdefault(row["parentId"], []).append(row)
    found: list[Json] = []
    todo = list(reversed(children.get(None, [])))
    while todo:
        row = todo.pop()
        found.append(row)
        todo.extend(reversed(children.get(row["id"], [])))
    return found


def _sort_value(row: Json, name: str) -> tuple[int, str]:
    return (row["sortOrder"], "") if name == "sortOrder" else (0, row["name"].casefold())


def _matches(row: Json, condition: Any, depth: int = 0) -> bool:
    if condition is None:
        return True
    if not isinstance(condition, dict) or depth > 20:
        raise bad_arguments("filter must be a condition or an operator")
    if "operator" in condition:
        inner = condition.get("conditions")
        if not isinstance(inner, list):
            raise bad_arguments("conditions must be a list")
        results = [_matches(row, item, depth + 1) for item in inner]
        if condition["operator"] == "AND":
            return all(results)
        if condition["operator"] in ("OR", "NOT"):
            return any(results) is (condition["operator"] == "OR")
        raise bad_arguments("the operator must be AND, OR or NOT")
    return all(_satisfies(row, name, value) for name, value in condition.items())


def _satisfies(row: Json, name: str, value: Any) -> bool:
    if name in ("parentId", "role"):
        return bool(row[name] == value)
    if name == "name" and isinstance(value, str):
        return value.casefold() in row["name"].casefold()
    if name == "hasAnyRole" and isinstance(value, bool):
        return (row["role"] is not None) is value
    if name == "isSubscribed" and isinstance(value, bool):
        return row["isSubscribed"] is value
    raise MethodError("unsupportedFilter", f"mailboxes cannot be filtered by {name[:100]}")


@method(
    *("Mailbox/queryChanges", MAIL, "filter", "sort", "sinceQueryState", "maxChanges", "upToId", "calculateTotal"),
)
async def query_changes(context: Context, args: Json) -> Json:
    raise no_query_changes(args)
