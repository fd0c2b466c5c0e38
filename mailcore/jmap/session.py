"""The Session object (RFC 8620 §2): who one is, what the server can do, where its doors are."""

from __future__ import annotations

import hashlib
from typing import Any

from mailcore import db
from mailcore.db import sql
from mailcore.inbound.sending import MIN_BY
from mailcore.jmap import ids, limits
from mailcore.jmap.auth import Caller
from mailcore.jmap.context import CORE, MAIL, SUBMISSION
from mailcore.jmap.errors import Problem
from mailcore.jmap.http import Request, encode

Json = dict[str, Any]

PERSON = sql("SELECT address, name FROM accounts_account WHERE id = %s::bigint")

CAPABILITIES: Json = {
    CORE: {
        "maxSizeUpload": limits.MAX_SIZE_UPLOAD,
        "maxConcurrentUpload": limits.MAX_CONCURRENT_UPLOAD,
        "maxSizeRequest": limits.MAX_SIZE_REQUEST,
        "maxConcurrentRequests": limits.MAX_CONCURRENT_REQUESTS,
        "maxCallsInRequest": limits.MAX_CALLS,
        "maxObjectsInGet": limits.MAX_OBJECTS_IN_GET,
        "maxObjectsInSet": limits.MAX_OBJECTS_IN_SET,
        "collationAlgorithms": ["i;unicode-casemap"],
    },
    MAIL: {},
    SUBMISSION: {},
}

ACCOUNT_CAPABILITIES: Json = {
    CORE: {},
    MAIL: {
        "maxMailboxesPerEmail": limits.MAX_MAILBOXES_PER_EMAIL,
        "maxMailboxDepth": None,
        "maxSizeMailboxName": limits.MAX_MAILBOX_NAME,
        "maxSizeAttachmentsPerEmail": limits.MAX_ATTACHMENTS,
        "emailQuerySortOptions": ["receivedAt", "sentAt", "size", "from", "to", "subject", "hasKeyword"],
        "mayCreateTopLevelMailbox": True,
    },
    SUBMISSION: {
        "maxDelayedSend": limits.MAX_DELAYED_SEND,
        "submissionExtensions": {
            "FUTURERELEASE": [str(limits.MAX_DELAYED_SEND)],
            "DELIVERBY": [str(MIN_BY)],
            "MT-PRIORITY": [],
        },
    },
}


async def session(request: Request, caller: Caller) -> Json:
    """The Session object. For the webmail its URLs are relative, because only the browser knows by which way it
    came."""
    async with db.read() as tx:
        row = await tx.one(PERSON, (caller.account_id,))
    if row is None:
        raise Problem(401, "about:blank", "sign in first")
    address, _name = row
    base = "" if caller.by_cookie else f"{request.scope.get('scheme', 'http')}://{_host(request)}"
    account = ids.account(caller.account_id)
    result: Json = {
        "capabilities": CAPABILITIES,
        "accounts": {
            account: {
                "name": address,
                "isPersonal": True,
                "isReadOnly": False,
                "accountCapabilities": ACCOUNT_CAPABILITIES,
            }
        },
        "primaryAccounts": dict.fromkeys(CAPABILITIES, account),
        "username": address,
        "apiUrl": f"{base}/jmap/",
        "downloadUrl": f"{base}/jmap/download/{{accountId}}/{{blobId}}/{{name}}?type={{type}}",
        "uploadUrl": f"{base}/jmap/upload/{{accountId}}/",
        "eventSourceUrl": f"{base}/jmap/events?types={{types}}&closeafter={{closeafter}}&ping={{ping}}",
    }
    return {**result, "state": _state(caller.account_id)}


def session_state(caller: Caller) -> str:
    """The state that every response carries; it changes when the Session object means something else."""
    return _state(caller.account_id)


_CONSTANT = hashlib.sha256(encode([CAPABILITIES, ACCOUNT_CAPABILITIES])).hexdigest()[:8]


def _state(account_id: int) -> str:
    return f"{_CONSTANT}-{account_id}"


def _host(request: Request) -> str:
    """The host that the client asked, as far as it can stand in a URL."""
    host = request.header(b"host")
    if host and len(host) < 300 and all(c.isalnum() or c in ".-:[]" for c in host):
        return host
    server = request.scope.get("server") or ("localhost", None)
    return f"{server[0]}:{server[1]}" if server[1] else str(server[0])
