"""What the standard methods of RFC 8620 §5 have in common."""

from __future__ import annotations

from mailcore.errors import Code, MailError
from mailcore.jmap import limits, values
from mailcore.jmap.context import Json
from mailcore.jmap.errors import MethodError, bad_arguments, of_method


def wanted_ids(args: Json) -> list[str] | None:
    """The `ids` of a /get, each once; None = all. Raises requestTooLarge."""
    found = values.strings(args, "ids")
    if found is None:
        return None
    found = list(dict.fromkeys(found))
    if len(found) > limits.MAX_OBJECTS_IN_GET:
        raise MethodError("requestTooLarge", f"at most {limits.MAX_OBJECTS_IN_GET} objects at a time")
    return found


def wanted_properties(args: Json, known: frozenset[str], default: frozenset[str]) -> frozenset[str]:
    """The `properties` of a /get, with id. Raises invalidArguments for unknown ones."""
    given = values.strings(args, "properties")
    if given is None:
        return default | {"id"}
    for name in given:
        if name not in known:
            raise bad_arguments(f"there is no property {name[:100]}")
    return frozenset(given) | {"id"}


def since_state(args: Json) -> int:
    """`sinceState` of a /changes; raises cannotCalculateChanges for a state that was never ours."""
    since = values.state_number(args, "sinceState")
    if since is None:
        raise bad_arguments("sinceState is missing")
    if since < 0:
        raise MethodError("cannotCalculateChanges", "that state is not known here")
    return since


def cannot_calculate(error: MailError) -> MethodError:
    """Why the store cannot tell what changed since a state."""
    if error.code in (Code.BAD_VALUE, Code.TOO_MANY):
        return MethodError("cannotCalculateChanges", error.text)
    return of_method(error)


def max_changes(args: Json) -> int:
    most = values.integer(args, "maxChanges", limits.DEFAULT_CHANGES, lo=1)
    return min(most or limits.DEFAULT_CHANGES, limits.MAX_CHANGES)


def check_state(args: Json, state: str) -> None:
    """`ifInState` of a /set; raises stateMismatch."""
    wanted = values.text(args, "ifInState")
    if wanted is not None and wanted != state:
        raise MethodError("stateMismatch", "something has changed meanwhile")


def set_arguments(args: Json) -> tuple[dict[str, Json], dict[str, Json], list[str]]:
    """(create, update, destroy) of a /set. Raises requestTooLarge, invalidArguments."""
    create, update = values.objects(args, "create"), values.objects(args, "update")
    destroy = list(dict.fromkeys(values.strings(args, "destroy") or []))
    if len(create) + len(update) + len(destroy) > limits.MAX_OBJECTS_IN_SET:
        raise MethodError("requestTooLarge", f"at most {limits.MAX_OBJECTS_IN_SET} objects at a time")
    return create, update, destroy


class Outcome:
    """The response of a /set as it grows."""

    def __init__(self) -> None:
        self.created: Json = {}
        self.updated: Json = {}
        self.destroyed: list[str] = []
        self.not_created: Json = {}
        self.not_updated: Json = {}
        self.not_destroyed: Json = {}

    def response(self, old_state: str, new_state: str) -> Json:
        return {
            "oldState": old_state,
            "newState": new_state,
            "created": self.created or None,
            "updated": self.updated or None,
            "destroyed": self.destroyed or None,
            "notCreated": self.not_created or None,
            "notUpdated": self.not_updated or None,
            "notDestroyed": self.not_destroyed or None,
        }


def no_query_changes(args: Json) -> MethodError:
    """The answer of a /queryChanges that is not kept track of."""
    if values.text(args, "sinceQueryState") is None:
        raise bad_arguments("sinceQueryState is missing")
    return MethodError("cannotCalculateChanges", "changes of queries are not kept: ask the query again")


def window(args: Json, ids: list[str], total: int | None = None) -> tuple[int, list[str]]:
    """(position, ids) that `position`, `anchor`, `anchorOffset` and `limit` cut out of all ids of a query."""
    limit = values.integer(args, "limit", len(ids))
    position = values.integer(args, "position", 0, lo=-(2**53) + 1) or 0
    anchor = values.text(args, "anchor")
    if anchor is not None:
        if anchor not in ids:
            raise MethodError("anchorNotFound")
        offset = values.integer(args, "anchorOffset", 0, lo=-(2**53) + 1) or 0
        position = max(0, ids.index(anchor) + offset)
    elif position < 0:
        position = max(0, len(ids) + position)
    end = position + limit if limit is not None else None
    return position, ids[position:end]
