"""What the reader derives from a message, in a form that people can read and check.

`python tests/mime/golden.py` writes tests/mime/corpus/NAME.json beside every NAME.eml. Read the difference before
committing it: the golden files are the statement of what is right, not of what the code does.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).parent / "corpus"


def derived(raw: bytes) -> dict[str, Any]:
    """Everything `parse` says about a message."""
    from mailcore import mime

    found = mime.parse(raw)
    parts = mime.unpack_parts(found.parts)
    text_body, html_body, attachments = mime.body_parts(parts)
    summary = {name: value for name, value in _plain(found.summary).items() if value not in (None, (), "")}
    if found.summary.sent_at:
        summary["sent_at"] = found.summary.sent_at.isoformat()
    return {
        "size": found.size,
        "header_size": found.header_size,
        "envelope": found.envelope.decode("latin-1"),
        "bodystructure": found.bodystructure.decode("latin-1"),
        "body": mime.body_from(found.bodystructure).decode("latin-1"),
        "parts": [_shown(raw, part) for part in parts],
        "text_body": [parts[row].id for row in text_body],
        "html_body": [parts[row].id for row in html_body],
        "attachments": [parts[row].id for row in attachments],
        "has_attachment": found.has_attachment,
        "headers": found.headers.decode("latin-1").splitlines(keepends=True),
        "summary": json.loads(json.dumps(summary)),
        "text": {name: value for name, value in found.text._asdict().items() if name not in ("header", "body")}
        | {"header": found.text.header.split("\n"), "body": found.text.body.split("\n")},
        "preview": found.preview,
    }


def _plain(summary: Any) -> dict[str, Any]:
    return {name: _people(value) for name, value in summary._asdict().items()}


def _people(value: Any) -> Any:
    return [asdict(one) if is_dataclass(one) else one for one in value] if isinstance(value, tuple) and value else value


def _shown(raw: bytes, part: Any) -> dict[str, Any]:
    """A row of the part table, with the octets that its offsets cut out instead of the offsets."""
    row = {name: value for name, value in part._asdict().items() if value is not None and value is not False}
    start, body, end = row.pop("header_start"), row.pop("body_start"), row.pop("body_end")
    row["header"] = raw[start:body].decode("latin-1")
    if part.type != "multipart" and not part.is_message:
        row["content"] = raw[body:end].decode("latin-1")
    else:
        row["octets"] = end - body
    return row


def golden_path(message: Path) -> Path:
    return message.with_suffix(".json")


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parents[2]))
    for message in sorted(CORPUS.glob("*.eml")):
        text = json.dumps(derived(message.read_bytes()), ensure_ascii=True, indent=1) + "\n"
        golden = golden_path(message)
        if not golden.exists() or golden.read_text() != text:
            print("written:", golden.name)
            golden.write_text(text)


if __name__ == "__main__":
    main()
