"""SearchSnippet/get (RFC 8621 §5): where the words of a search stand in subject and preview."""

from __future__ import annotations

import html
import re
from typing import Any

from mailcore import db
from mailcore.jmap import filters, ids, queries
from mailcore.jmap.context import MAIL, Context, Json, method
from mailcore.jmap.errors import bad_arguments
from mailcore.jmap.methods.common import wanted_ids
from mailcore.mime import Summary
from mailcore.store import fetch

MAX_WORDS = 50


@method("SearchSnippet/get", MAIL, "filter", "emailIds")
async def get(context: Context, args: Json) -> Json:
    """Subject and preview of emails as HTML with the words found in <mark>; null where none of them is."""
    wanted = wanted_ids({"ids": args.get("emailIds")})
    if wanted is None:
        raise bad_arguments("emailIds is missing")
    filters.criterion(args.get("filter"))
    words: dict[str, None] = {}
    _collect(args.get("filter"), words)
    pattern = re.compile("|".join(re.escape(word) for word in list(words)[:MAX_WORDS]), re.I) if words else None
    numbers, missing = ids.numbers_of(wanted, "M")
    async with db.read() as tx:
        present = await queries.presences(tx, context.account_id, list(numbers))
        rows = await fetch.messages(tx, context.account_id, list(present), ("id", "summary", "preview"))
    found = {row[0]: (Summary.from_json(row[1]).subject, row[2]) for row in rows}
    snippets = [
        {"emailId": given, "subject": _marked(found[n][0], pattern), "preview": _marked(found[n][1], pattern)}
        for n, given in numbers.items()
        if n in found
    ]
    missing += [given for n, given in numbers.items() if n not in found]
    return {"list": snippets, "notFound": missing or None}


def _collect(given: Any, words: dict[str, None]) -> None:
    """The words that a filter looks for, but not those it excludes."""
    if not isinstance(given, dict):
        return
    if "operator" in given:
        if given["operator"] != "NOT":
            for item in given.get("conditions", ()):
                _collect(item, words)
        return
    for name in ("text", "subject", "body"):
        if isinstance(given.get(name), str):
            words.update(dict.fromkeys(filters.words(given[name])))


def _marked(text: str | None, pattern: re.Pattern[str] | None) -> str | None:
    if not text or pattern is None:
        return None
    out, at = [], 0
    for match in pattern.finditer(text):
        out.append(html.escape(text[at : match.start()], quote=False))
        out.append(f"<mark>{html.escape(match.group(), quote=False)}</mark>")
        at = match.end()
    if not out:
        return None
    return "".join(out) + html.escape(text[at:], quote=False)
