"""Mailbox/set (RFC 8621 §2.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mailcore import db
from mailcore.errors import Code, MailError
from mailcore.jmap import ids, values
from mailcore.jmap.context import MAIL, Context, Json, method
from mailcore.jmap.errors import SetError, invalid, of_object
from mailcore.jmap.limits import MAX_MAILBOX_NAME
from mailcore.jmap.methods.common import Outcome, check_state, set_arguments
from mailcore.jmap.methods.mailbox import ORDER, OTHERS, USES, role_of
from mailcore.store import changes, mailboxes
from mailcore.store.mailboxes import INBOX, SEPARATOR, Mailbox

SETTABLE = frozenset({"name", "parentId", "role", "isSubscribed", "sortOrder"})


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a mailbox is to be."""

    name: str
    role: str | None
    subscribed: bool


@method("Mailbox/set", MAIL, "ifInState", "create", "update", "destroy", "onDestroyRemoveEmails")
async def mailbox_set(context: Context, args: Json) -> Json:
    """Make, rename, move, subscribe and remove mailboxes; each in a transaction of its own."""
    create, update, destroy = set_arguments(args)
    remove_emails = values.boolean(args, "onDestroyRemoveEmails")
    outcome = Outcome()
    async with db.read() as tx:
        old_state = str(await changes.state(tx, context.account_id))
    check_state(args, old_state)
    await _create_all(context, create, outcome)
    for given, patch in update.items():
        try:
            await _update(context, given, patch)
            outcome.updated[context.resolve(given)] = None
        except (SetError, MailError) as error:
            outcome.not_updated[given] = _body(error)
    await _destroy_all(context, destroy, remove_emails, outcome)
    context.wrote()
    async with db.read() as tx:
        return outcome.response(old_state, await context.state(tx))


def _body(error: SetError | MailError) -> Json:
    return error.body if isinstance(error, SetError) else of_object(error, "name").body


async def _create_all(context: Context, create: dict[str, Json], outcome: Outcome) -> None:
    """In whatever order parents come before their children."""
    waiting = dict(create)
    while waiting:
        ready = {key: given for key, given in waiting.items() if _parent_key(given) not in waiting}
        for key, given in (ready or waiting).items():
            del waiting[key]
            try:
                outcome.created[key] = await _create(context, given)
                context.created[key] = outcome.created[key]["id"]
            except (SetError, MailError) as error:
                outcome.not_created[key] = _body(error)


def _parent_key(given: Json) -> str | None:
    parent = given.get("parentId")
    return parent[1:] if isinstance(parent, str) and parent.startswith("#") else None


async def _create(context: Context, given: Json) -> Json:
    async with db.transaction() as tx:
        everything = await mailboxes.all(tx, context.account_id)
        wish = _wish(context, given, everything, None)
        made = await mailboxes.create(tx, context.account_id, wish.name, USES.get(wish.role or ""))
        if wish.subscribed:
            await mailboxes.subscribe(tx, context.account_id, made.name)
    rights = ("mayReadItems", "mayAddItems", "mayRemoveItems", "maySetSeen", "maySetKeywords", "mayCreateChild")
    answer: Json = {
        "id": ids.mailbox(made.id),
        "sortOrder": ORDER.get(wish.role or "", OTHERS),
        **dict.fromkeys(("totalEmails", "unreadEmails", "totalThreads", "unreadThreads"), 0),
        "myRights": dict.fromkeys((*rights, "mayRename", "mayDelete", "maySubmit"), True),
    }
    defaults: Json = {"parentId": None, "role": None, "isSubscribed": False}
    return answer | {name: value for name, value in defaults.items() if name not in given}


async def _update(context: Context, given: str, patch: Json) -> None:
    account_id = context.account_id
    async with db.transaction() as tx:
        everything = await mailboxes.all(tx, account_id)
        mailbox = _named(context, given, everything)
        wish = _wish(context, patch, everything, mailbox)
        if wish.name != mailbox.name:
            await mailboxes.rename(tx, account_id, mailbox.name, wish.name)
            await _rename_subscriptions(tx, account_id, everything, mailbox.name, wish.name)
        if wish.role != role_of(mailbox):
            await mailboxes.set_special_use(tx, account_id, mailbox.id, USES.get(wish.role or ""))
        if wish.subscribed != mailbox.subscribed:
            change = mailboxes.subscribe if wish.subscribed else mailboxes.unsubscribe
            await change(tx, account_id, wish.name)


async def _rename_subscriptions(tx: db.Tx, account_id: int, everything: list[Mailbox], old: str, new: str) -> None:
    """In JMAP it is the mailbox that is subscribed, so its subscription follows it, and those of all below it."""
    for one in everything:
        if one.subscribed and (one.name == old or one.name.startswith(old + SEPARATOR)):
            await mailboxes.unsubscribe(tx, account_id, one.name)
            await mailboxes.subscribe(tx, account_id, new + one.name[len(old) :])


def _named(context: Context, given: str, everything: list[Mailbox]) -> Mailbox:
    number = ids.number_of(context.resolve(given), "F")
    for mailbox in everything:
        if mailbox.id == number:
            return mailbox
    raise SetError("notFound")


def _wish(context: Context, given: Json, everything: list[Mailbox], now: Mailbox | None) -> _Wish:
    """What a create or a patch asks for, checked as far as the store will not do it. Raises SetError."""
    for name in given:
        if name not in SETTABLE:
            raise invalid(f"{name[:100]} cannot be set", name[:100])
    role = role_of(now) if now else None
    if "role" in given and given["role"] != role:
        role = given["role"]
        if role is not None and role not in USES:
            raise invalid("that role cannot be given", "role")
        if now is not None and now.name == INBOX:
            raise invalid("the inbox stays the inbox", "role")
    order = given.get("sortOrder")
    if order is not None and order != ORDER.get(role or "", OTHERS):
        raise invalid("the order of mailboxes follows from their roles and names", "sortOrder")
    subscribed = given.get("isSubscribed", now.subscribed if now else False)
    if not isinstance(subscribed, bool):
        raise invalid("isSubscribed is true or false", "isSubscribed")
    return _Wish(_full_name(context, given, everything, now), role, subscribed)


def _full_name(context: Context, given: Json, everything: list[Mailbox], now: Mailbox | None) -> str:
    parent, _, name = now.name.rpartition(SEPARATOR) if now else ("", "", "")
    if "name" in given or now is None:
        name = _level(given.get("name"))
    if given.get("parentId", parent) is None:
        parent = ""
    elif "parentId" in given:
        number = ids.number_of(context.resolve(str(given["parentId"])), "F")
        found = next((mailbox for mailbox in everything if mailbox.id == number), None)
        if found is None:
            raise invalid("there is no such parent", "parentId")
        parent = found.name
    full = f"{parent}{SEPARATOR}{name}" if parent else name
    if now is not None and now.name == INBOX and full != INBOX:
        raise SetError("forbidden", "the inbox cannot be renamed")
    if full != (now.name if now else None):
        if full.upper() == INBOX:
            raise invalid("there is an inbox already", "name")
        if any(mailbox.name == full for mailbox in everything):
            raise invalid("there is a mailbox of that name already", "name")
    return full


def _level(name: Any) -> str:
    if not isinstance(name, str) or not name.strip():
        raise invalid("a mailbox needs a name", "name")
    if SEPARATOR in name:
        raise invalid(f"a name has no {SEPARATOR} in it", "name")
    if len(name.encode()) > MAX_MAILBOX_NAME:
        raise invalid(f"a name has {MAX_MAILBOX_NAME} octets at most", "name")
    return name


async def _destroy_all(context: Context, destroy: list[str], remove_emails: bool, outcome: Outcome) -> None:
    """Children before their parents."""
    async with db.read() as tx:
        names = {m.id: m.name for m in await mailboxes.all(tx, context.account_id)}

    def depth(given: str) -> int:
        return names.get(ids.number_of(context.resolve(given), "F") or 0, "").count(SEPARATOR)

    for given in sorted(destroy, key=depth, reverse=True):
        try:
            await _destroy(context, given, remove_emails)
            outcome.destroyed.append(context.resolve(given))
        except MailError as error:
            kind = "mailboxHasChild" if error.code is Code.NOT_EMPTY else of_object(error).body["type"]
            outcome.not_destroyed[given] = SetError(kind, error.text).body
        except SetError as error:
            outcome.not_destroyed[given] = error.body


async def _destroy(context: Context, given: str, remove_emails: bool) -> None:
    async with db.transaction() as tx:
        mailbox = _named(context, given, await mailboxes.all(tx, context.account_id))
        if mailbox.messages and not remove_emails:
            raise SetError("mailboxHasEmail", "there are emails in it")
        await mailboxes.delete(tx, context.account_id, mailbox.name)
