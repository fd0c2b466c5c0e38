"""EmailSubmission/set (RFC 8621 §7.5): sending, and taking back what has not left yet."""

from __future__ import annotations

from mailcore import db
from mailcore.errors import MailError
from mailcore.jmap import ids, submissions, values
from mailcore.jmap.context import SUBMISSION, Context, Json, method
from mailcore.jmap.errors import MethodError, SetError, bad_arguments, invalid, of_object
from mailcore.jmap.methods.common import Outcome, check_state, set_arguments
from mailcore.jmap.methods.email_set import email_set
from mailcore.jmap.submit import submit

_SUCCESS = ("onSuccessUpdateEmail", "onSuccessDestroyEmail")


@method("EmailSubmission/set", SUBMISSION, "ifInState", "create", "update", "destroy", *_SUCCESS)
async def submission_set(context: Context, args: Json) -> Json:
    """Send emails, cancel those held back; then do with the emails what the onSuccess arguments say."""
    create, update, destroy = set_arguments(args)
    on_update, on_destroy = values.objects(args, _SUCCESS[0]), values.strings(args, _SUCCESS[1]) or []
    for key in (*on_update, *on_destroy):
        if key.startswith("#") and key[1:] not in create and key[1:] not in context.created:
            raise bad_arguments(f"{key[:100]} is not created here")
    outcome = Outcome()
    emails: dict[str, int] = {}
    async with db.read() as tx:
        old_state = await submissions.state(tx, context.account_id)
    check_state(args, old_state)
    for creation_id, given in create.items():
        try:
            number, created = await submit(context, given)
        except SetError as error:
            outcome.not_created[creation_id] = error.body
        except MailError as error:
            outcome.not_created[creation_id] = of_object(error).body
        else:
            outcome.created[creation_id] = created
            context.created[creation_id] = created["id"]
            emails[f"#{creation_id}"] = emails[created["id"]] = number
    for given_id, patch in update.items():
        try:
            emails[given_id] = await _cancel(context, given_id, patch)
            outcome.updated[given_id] = None
        except SetError as error:
            outcome.not_updated[given_id] = error.body
        except MailError as error:
            outcome.not_updated[given_id] = of_object(error).body
    async with db.read() as tx:
        traces = [found for one in destroy if (found := submissions.trace_id_of(one))]
        known = await submissions.load(tx, context.account_id, traces)
        new_state = await submissions.state(tx, context.account_id)
    for given_id in destroy:
        there = submissions.trace_id_of(given_id) in known
        refusal = SetError("forbidden", "what was sent stays on record") if there else SetError("notFound")
        outcome.not_destroyed[given_id] = refusal.body
    context.wrote()
    await _afterwards(context, emails, on_update, on_destroy)
    return outcome.response(old_state, new_state)


async def _cancel(context: Context, given_id: str, patch: Json) -> int:
    """Take a message back; returns the number of its email."""
    trace_id = submissions.trace_id_of(context.resolve(given_id))
    async with db.transaction() as tx:
        found = await submissions.load(tx, context.account_id, [trace_id]) if trace_id else {}
        submission = found.get(trace_id or "")
        if submission is None:
            raise SetError("notFound")
        for name in patch:
            if name != "undoStatus" or patch[name] not in ("canceled", submission.undo_status):
                raise invalid("only undoStatus can become canceled", name[:100])
        if patch.get("undoStatus") == "canceled" and not submission.canceled:
            try:
                await submissions.cancel(tx, context.account_id, submission.trace_id)
            except MailError as error:
                raise SetError("cannotUnsend", error.text) from None
        return int(submission.detail["email"])


async def _afterwards(
    context: Context, emails: dict[str, int], on_update: dict[str, Json], on_destroy: list[str]
) -> None:
    """The implicit Email/set of what succeeded; its response follows ours. It cannot undo that mail was sent, so
    whatever goes wrong in it is said of its emails, never of the submissions."""
    update = {ids.email(emails[key]): patch for key, patch in on_update.items() if key in emails}
    destroy = [ids.email(emails[key]) for key in on_destroy if key in emails]
    if not update and not destroy:
        return
    try:
        response = await email_set(context, {"update": update, "destroy": destroy})
    except (MethodError, MailError) as error:
        body = error.body if isinstance(error, MethodError) else of_object(error).body
        response = {"notUpdated": dict.fromkeys(update, body), "notDestroyed": dict.fromkeys(destroy, body)}
    context.also.append(("Email/set", {"accountId": ids.account(context.account_id), **response}))
