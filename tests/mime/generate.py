"""Hypothesis strategies for messages: well-formed trees, and octets that are nearly messages."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

# Pieces that steer a reader into its corners.
FRAGMENTS = [
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b"\0", b"--", b"--b", b"--b--", b"\r\n--b\r\n",
    b"\r\n--b--\r\n", b"\n--b", b"--bb\r\n", b"Content-Type: multipart/mixed; boundary=b\r\n",
    b"Content-Type: multipart/digest;boundary=b", b"Content-Type: multipart/alternative; boundary=\"bb\"\r\n",
    b"Content-Type: message/rfc822\r\n", b"Content-Type: text/html; charset=utf-8\r\n", b"Content-Type: ",
    b"text/plain; charset=utf-7\r\n", b"Content-Transfer-Encoding: base64\r\n",
    b"Content-Transfer-Encoding: quoted-printable\r\n", b"Content-Transfer-Encoding: x-uuencode\r\n",
    b"begin 644 a\r\n", b"Content-Disposition: attachment; filename*0*=", b"; filename*1=\"",
    b"; name*=utf-8''%C3%A9", b"utf-8'en'%zz", b"Subject: ", b"From: ", b"To: a <b@c>, ", b"Date: ",
    b"Tue, 4 Mar 2025 09:30:00 +0100\r\n", b"References: <a@b> <c", b"List-Id: <l>", b"=?utf-8?B?w6k=?=",
    b"=?utf-8?Q?=C3", b"?=", b"=?", b"=?iso-2022-jp?B?GyRC", b"(", b")", b"<", b">", b"\"", b"\\", b":", b";",
    b",", b"@", b"[", b"]", b"=", b"<script>", b"<!--", b"-->", b"<p a='", b"&#x41;", b"&amp", b"\xc3\xa9",
    b"\xe9", b"\xff", b"\xf0\x9f\x98\x80", b"{3}", "\u0301\u0316".encode(), "\ufdfa".encode(), b"+2AA-", b"\x1b$B",
    b"> quoted\r\n", b"-- \r\n", b"On x wrote:\r\n",
]  # fmt: skip

near_messages = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=12)), max_size=60).map(b"".join)

_line = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0", exclude_categories=["Cs", "Cc"]), max_size=40)
_body = st.lists(_line.map(lambda s: s if not s.startswith("--") else " " + s), max_size=5).map(
    lambda lines: "".join(line + "\r\n" for line in lines).encode()
)


@st.composite
def trees(draw: Any, depth: int = 3) -> tuple[str, Any]:
    """(type, content): content is octets for a leaf, a tree for message/rfc822, a list of trees for a multipart."""
    kinds = ["leaf", "leaf", "leaf"]
    if depth:
        kinds += ["multipart", "multipart", "message"]
    kind = draw(st.sampled_from(kinds))
    if kind == "leaf":
        return draw(st.sampled_from(["text/plain", "text/html", "application/pdf", "image/png"])), draw(_body)
    if kind == "message":
        return "message/rfc822", draw(trees(depth - 1))
    subtype = draw(st.sampled_from(["mixed", "alternative", "related", "signed", "x-other"]))
    return f"multipart/{subtype}", draw(st.lists(trees(depth - 1), min_size=1, max_size=3))


def written(tree: tuple[str, Any], number: list[int] | None = None) -> bytes:
    """The message or part that a tree describes."""
    number = number if number is not None else [0]
    kind, content = tree
    if isinstance(content, bytes):
        return f"Content-Type: {kind}\r\nContent-Transfer-Encoding: 8bit\r\n\r\n".encode() + content
    if isinstance(content, tuple):
        return b"Content-Type: message/rfc822\r\n\r\nSubject: embedded\r\n" + written(content, number)
    number[0] += 1
    boundary = f"b{number[0]}" * (1 + number[0] % 2)  # some begin like others
    pieces = [f"Content-Type: {kind}; boundary={boundary}\r\n\r\npreamble".encode()]
    for child in content:
        pieces.append(f"\r\n--{boundary}\r\n".encode() + written(child, number))
    pieces.append(f"\r\n--{boundary}--\r\n".encode())
    return b"".join(pieces)
