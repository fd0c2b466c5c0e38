"""Identity/get, /changes, /set (RFC 8621 §6): one identity for each address that the account may send as."""

from __future__ import annotations

from mailcore import db
from mailcore.jmap.context import SUBMISSION, Context, Json, method
from mailcore.jmap.errors import MethodError, SetError
from mailcore.jmap.identities import identities, state_of
from mailcore.jmap.methods.common import Outcome, check_state, set_arguments, wanted_ids, wanted_properties
from mailcore.jmap.values import text

PROPERTIES = frozenset({"id", "name", "email", "replyTo", "bcc", "textSignature", "htmlSignature", "mayDelete"})


@method("Identity/get", SUBMISSION, "ids", "properties")
async def get(context: Context, args: Json) -> Json:
    """The identities; names and addresses are the administration's business."""
    wanted = wanted_ids(args)
    properties = wanted_properties(args, PROPERTIES, PROPERTIES)
    async with db.read() as tx:
        found = await identities(tx, context.account_id)
    rows = {
        one.id: {
            "id": one.id,
            "name": one.name,
            "email": one.email,
            "replyTo": None,
            "bcc": None,
            "textSignature": "",
            "htmlSignature": "",
            "mayDelete": False,
        }
        for one in found
    }
    if wanted is None:
        wanted = list(rows)
    chosen = [{name: rows[one][name] for name in rows[one] if name in properties} for one in wanted if one in rows]
    return {"state": state_of(found), "list": chosen, "notFound": [one for one in wanted if one not in rows]}


@method("Identity/changes", SUBMISSION, "sinceState", "maxChanges")
async def identity_changes(context: Context, args: Json) -> Json:
    since = text(args, "sinceState")
    async with db.read() as tx:
        state = state_of(await identities(tx, context.account_id))
    if since != state:
        raise MethodError("cannotCalculateChanges", "ask for all identities")
    nothing: Json = {"created": [], "updated": [], "destroyed": []}
    return {"oldState": state, "newState": state, "hasMoreChanges": False, **nothing}


@method("Identity/set", SUBMISSION, "ifInState", "create", "update", "destroy")
async def identity_set(context: Context, args: Json) -> Json:
    """Identities follow from the addresses that an administrator gives: nothing here can be changed yet."""
    create, update, destroy = set_arguments(args)
    async with db.read() as tx:
        found = await identities(tx, context.account_id)
    state = state_of(found)
    check_state(args, state)
    known = {one.id for one in found}
    fixed = SetError("forbidden", "identities are made by the administrator").body
    missing = SetError("notFound").body
    outcome = Outcome()
    outcome.not_created = dict.fromkeys(create, fixed)
    outcome.not_updated = {one: fixed if one in known else missing for one in update}
    outcome.not_destroyed = {one: fixed if one in known else missing for one in destroy}
    return outcome.response(state, state)
