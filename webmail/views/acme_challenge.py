"""Tells a certificate authority that a name leads here: /.well-known/acme-challenge/TOKEN (RFC 8555 §8.3)."""

from __future__ import annotations

import re

from django.http import HttpRequest, HttpResponse, HttpResponseNotFound
from django.views.decorators.http import require_safe

from mailcore import db
from mailcore.store import certificates

# RFC 8555 §8.3: base64url; Let's Encrypt's have 43.
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,200}")


@require_safe
def answer(request: HttpRequest, token: str) -> HttpResponse:
    """The answer that the renewal has left for this token; 404 when there is none."""
    found = None
    if _TOKEN.fullmatch(token):
        with db.django_transaction() as tx:
            found = db.run_sync(certificates.challenge_answer(tx, token))
    if found is None:
        return HttpResponseNotFound("Nobody is waiting for that.\n", content_type="text/plain; charset=utf-8")
    response = HttpResponse(found, content_type="application/octet-stream")
    response["Cache-Control"] = "no-store"
    return response
