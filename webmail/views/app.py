"""The webmail's one page: a shell that static/js/app.js fills over JMAP. Each of its addresses gives the same page."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.templatetags.static import static
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

# blob: images and frames are previews of attachments, whose type is on an allow-list (static/js/views/attachments.js).
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self';"
    " frame-src 'self' blob:; font-src 'self'; manifest-src 'self'; form-action 'self'; frame-ancestors 'none';"
    " base-uri 'none'"
)


@lru_cache(maxsize=1)
def modules() -> tuple[str, ...]:
    """Every module that reading mail needs, so that the page can name them at once instead of one level at a time."""
    root = Path(settings.BASE_DIR) / "static"
    own = [path for path in sorted((root / "js").rglob("*.js")) if path.name not in ("theme.js", "vendor-editor.js")]
    lit = [
        root / "vendor" / "lit-html-3.3.3" / name
        for name in ("lit-html.js", "directive.js", "directive-helpers.js", "async-directive.js")
    ]
    return tuple(static(path.relative_to(root).as_posix()) for path in [*own, *lit])


@never_cache
@require_safe
@login_required
def app(request: HttpRequest, **_place: str) -> HttpResponse:
    """The page, for signed-in people; others are sent to sign in and come back to where they wanted to be."""
    response = render(request, "webmail/app.html", {"modules": modules()})
    response["Content-Security-Policy"] = POLICY
    response["Referrer-Policy"] = "same-origin"
    response["Cross-Origin-Opener-Policy"] = "same-origin"
    response["Permissions-Policy"] = "camera=(), geolocation=(), microphone=(), payment=(), usb=()"
    return response
