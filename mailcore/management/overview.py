"""What `manage.py` says without a command: ours with a line each, taken from the head of their files.

Nothing of Django is loaded for it, so that it can be read before there is an installation.
"""

from __future__ import annotations

import ast
from pathlib import Path

_COMMANDS = Path(__file__).parent / "commands"


def text() -> str:
    """The list of commands, and how to learn more."""
    told = {path.stem: _purpose(path) for path in sorted(_COMMANDS.glob("[a-z]*.py"))}
    width = max(map(len, told))
    lines = [f"  {name.ljust(width)}  {what}" for name, what in told.items()]
    return "\n".join(
        [
            "Mailstead's commands:",
            "",
            *lines,
            "",
            "`manage.py COMMAND --help` explains one; Django's own (migrate, shell, dbshell …) are there too.",
        ]
    )


def _purpose(path: Path) -> str:
    head = ast.get_docstring(ast.parse(path.read_bytes())) or ""
    return " ".join(head.partition(": ")[2].split()).partition(". ")[0].removesuffix(".")
