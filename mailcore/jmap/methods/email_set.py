"""Email/set (RFC 8621 §4.6): drafts are written, emails marked, moved and destroyed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from mailcore import db, mime
from mailcore.errors import Code, MailError
from mailcore.jmap import blobs, drafts, ids, placing, queries, values
from mailcore.jmap.blob_ids import message_blob_id
from mailcore.jmap.context import MAIL, Context, Json, method
from mailcore.jmap.errors import MethodError, SetError, invalid, of_object
from mailcore.jmap.methods.common import Outcome, check_state, set_arguments
from mailcore.store import changes, locks, mailboxes
from mailcore.store.append import Appended, Incoming, append

# More than this is encoded and parsed beside the event loop.
INLINE_OCTETS = 200_000


@dataclass(frozen=True, slots=True)
class Place:
    """Where a new email goes and how it is marked."""

    mailboxes: tuple[int, ...]
    marks: placing.Marks
    received_at: datetime | None


def place_of(context: Context, given: Json, known: frozenset[int]) -> Place:
    """mailboxIds, keywords and receivedAt of an email to be made. Raises SetError."""
    chosen = placing.mailbox_map(given.get("mailboxIds"), context.resolve, known)
    keywords = given.get("keywords")
    marks = placing.Marks() if keywords is None else placing.keyword_map(keywords)
    received_at = None
    if given.get("receivedAt") is not None:
        try:
            received_at = values.parse_date(given["receivedAt"], "receivedAt")
        except MethodError:
            raise invalid("receivedAt must be a date", "receivedAt") from None
    return Place(tuple(sorted(chosen)), marks, received_at)


async def known_mailboxes(tx: db.Tx, account_id: int) -> frozenset[int]:
    return frozenset(mailbox.id for mailbox in await mailboxes.all(tx, account_id))


async def store(context: Context, wanted: Mapping[str, tuple[Place, bytes]], outcome: Outcome) -> None:
    """Store new emails by creation id, each with its own success: all that go into one mailbox in one transaction of
    the process's batcher, each that begins in several in one of its own."""
    items: dict[str, Incoming] = {}
    for creation_id, (place, raw) in wanted.items():
        derived = mime.parse(raw) if len(raw) <= INLINE_OCTETS else await asyncio.to_thread(mime.parse, raw)
        marks = place.marks
        items[creation_id] = Incoming(
            context.account_id, place.mailboxes[0], raw, derived, marks.flags, marks.words, place.received_at
        )
    single = [creation_id for creation_id in items if len(wanted[creation_id][0].mailboxes) == 1]
    results: dict[str, Appended | MailError] = {}
    if single:
        stored = await context.services.ingest.add([items[creation_id] for creation_id in single])
        results.update(zip(single, stored, strict=True))
    for creation_id in [each for each in items if each not in results]:
        results[creation_id] = await _store_in_several(context, wanted[creation_id][0], items[creation_id])
    if items:
        context.wrote()
    for creation_id, (_, raw) in wanted.items():
        result = results[creation_id]
        if isinstance(result, MailError):
            outcome.not_created[creation_id] = of_object(result, "mailboxIds").body
            continue
        email_id = ids.email(result.message_id)
        context.created[creation_id] = email_id
        outcome.created[creation_id] = {
            "id": email_id,
            "blobId": message_blob_id(result.message_id),
            "threadId": ids.thread(result.thread_id),
            "size": len(raw),
        }


async def _store_in_several(context: Context, place: Place, item: Incoming) -> Appended | MailError:
    """An email that begins in several mailboxes: in all of them, or nowhere."""
    account_id = context.account_id
    try:
        async with db.transaction() as tx:
            (result,) = await append(tx, [item])
            if isinstance(result, MailError):
                raise result
            number = result.message_id
            present = await queries.presences(tx, account_id, [number])
            change = placing.Change(mailboxes=frozenset(place.mailboxes))
            await placing.apply(tx, account_id, {number: change}, present)
    except MailError as error:
        return error
    return result


@method("Email/set", MAIL, "ifInState", "create", "update", "destroy")
async def email_set(context: Context, args: Json) -> Json:
    """Create drafts, change keywords and mailboxes, destroy; each object succeeds or fails by itself."""
    create, update, destroy = set_arguments(args)
    outcome = Outcome()
    async with db.read() as tx:
        old_state = str(await changes.state(tx, context.account_id))
    check_state(args, old_state)
    if create:
        await _create(context, create, outcome)
    if update or destroy:
        await _change(context, update, destroy, outcome, args if not create else {})
    context.wrote()
    async with db.read() as tx:
        return outcome.response(old_state, await context.state(tx))


async def _create(context: Context, create: dict[str, Json], outcome: Outcome) -> None:
    async with db.read() as tx:
        known = await known_mailboxes(tx, context.account_id)
    small: dict[str, tuple[Place, bytes]] = {}
    for creation_id, given in create.items():
        try:
            place = place_of(context, given, known)
            named = drafts.blob_ids(given)
            if named:
                await _create_large(context, creation_id, place, given, named, outcome)
            else:
                small[creation_id] = (place, await _compose(context, given, {}))
        except SetError as error:
            outcome.not_created[creation_id] = error.body
    # All of them together are no larger than the request was.
    await store(context, small, outcome)


async def _create_large(
    context: Context, creation_id: str, place: Place, given: Json, named: Sequence[str], outcome: Outcome
) -> None:
    """An email with attachments: one at a time, because all of them need not fit into memory."""
    async with context.services.large:
        content = await blobs.load_all(context.account_id, named)
        await store(context, {creation_id: (place, await _compose(context, given, content))}, outcome)


async def _compose(context: Context, given: Json, content: Mapping[str, bytes]) -> bytes:
    services = context.services
    if sum(map(len, content.values())) > INLINE_OCTETS:
        raw = await asyncio.to_thread(drafts.create, given, content, services.hostname)
    else:
        raw = drafts.create(given, content, services.hostname)
    if len(raw) > services.message_size:
        raise SetError(
            "tooLarge", f"a message has {services.message_size} octets at most", maxSize=services.message_size
        )
    return raw


async def _change(
    context: Context, update: dict[str, Json], destroy: Sequence[str], outcome: Outcome, args: Json
) -> None:
    """Updates and destroys in one transaction; where one of them cannot be done, each in its own."""
    try:
        await _change_together(context, update, destroy, outcome, args)
    except MailError as error:
        if error.code is Code.UNAVAILABLE or len(update) + len(destroy) == 1:
            _failed(update, destroy, outcome, error)
            return
        for one, patch in update.items():
            await _change(context, {one: patch}, (), outcome, {})
        for one in destroy:
            await _change(context, {}, (one,), outcome, {})


def _failed(update: dict[str, Json], destroy: Sequence[str], outcome: Outcome, error: MailError) -> None:
    for one in update:
        outcome.not_updated[one] = of_object(error, "mailboxIds").body
    for one in destroy:
        outcome.not_destroyed[one] = of_object(error).body


async def _change_together(
    context: Context, update: dict[str, Json], destroy: Sequence[str], outcome: Outcome, args: Json
) -> None:
    account_id = context.account_id
    numbers = {given: ids.number_of(context.resolve(given), "M") for given in (*update, *destroy)}
    refused: dict[str, Json] = {}
    planned: dict[int, placing.Change] = {}
    done: dict[str, None] = {}
    doomed: dict[int, str] = {}
    async with db.transaction() as tx:
        state = await locks.lock_account(tx, account_id)
        check_state(args, str(state))
        known = await known_mailboxes(tx, account_id)
        present = await queries.presences(tx, account_id, [n for n in numbers.values() if n is not None])
        for given, patch in update.items():
            number = numbers[given]
            try:
                if number is None or number not in present:
                    raise SetError("notFound")
                if given in destroy or number in planned:
                    kind = "willDestroy" if given in destroy else "invalidPatch"
                    raise SetError(kind, "the email is named twice")
                planned[number] = placing.change(patch, present[number], context.resolve, known)
                done[ids.email(number)] = None
            except SetError as error:
                refused[given] = error.body
        for given in destroy:
            number = numbers[given]
            if number is not None and number in present:
                doomed[number] = ids.email(number)
        await placing.apply(tx, account_id, planned, present)
        await placing.destroy(tx, account_id, [present[number] for number in doomed])
    outcome.not_updated.update(refused)
    outcome.updated.update(done)
    outcome.destroyed.extend(doomed.values())
    for given in destroy:
        if numbers[given] not in doomed:
            outcome.not_destroyed[given] = SetError("notFound").body
