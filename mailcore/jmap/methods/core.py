"""Core/echo (RFC 8620 §4)."""

from __future__ import annotations

from mailcore.jmap.context import CORE, Context, Json, method


@method("Core/echo", CORE)
async def echo(context: Context, args: Json) -> Json:
    """The arguments come back; the engine answers before it looks for an account."""
    return args
