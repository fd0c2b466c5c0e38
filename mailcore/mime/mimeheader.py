"""A part's MIME header: what it says, and the pieces of BODYSTRUCTURE that follow from it (RFC 2045, 2183, 9051)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from json.encoder import encode_basestring as _json

from mailcore.mime import headers, params
from mailcore.mime.headers import decode_header, unfold
from mailcore.mime.imaplex import nstring, string
from mailcore.mime.limits import MAX_MIME_HEADER, MAX_VALUE

_TYPE = re.compile(rb"\s*([!#$&^_.+\-0-9A-Za-z*]+)\s*/\s*([!#$&^_.+\-0-9A-Za-z*]+)")
_TOKEN = re.compile(rb"\s*([^\s;()]+)")
_LANGUAGE = re.compile(rb"[A-Za-z0-9-]+")

# The fields of a header that this module reads.
FIELDS = frozenset(
    b"""content-type content-transfer-encoding content-disposition content-id content-description content-language
    content-location content-md5""".split()
)


# What decides where a person sees the part: type, subtype, disposition ("" for those that make no difference), and
# whether it has a filename and a Content-ID.
Shape = tuple[str, str, str, bool, bool]

_TYPES = frozenset(("multipart", "text", "image", "audio", "video"))
_DISPOSITIONS = frozenset(("attachment", "inline"))
# Signatures and wrappers, and multiparts whose members are machinery or other forms of the same text.
WRAPPERS = frozenset(
    ("pgp-signature", "pkcs7-signature", "x-pkcs7-signature", "pkcs7-mime", "x-pkcs7-mime", "pgp-encrypted", "pgp-keys")
)
NO_ATTACHMENTS_IN = frozenset(("alternative", "report", "encrypted", "digest"))
_SUBTYPES = WRAPPERS | NO_ATTACHMENTS_IN | {"plain", "html", "related"}


class Mime:
    """A MIME header, parsed. Never changed after it was made: headers that repeat share one."""

    __slots__ = (
        "boundary", "charset", "cid", "disposition", "encoding", "extension", "filename", "flow", "has_fields", "head",
        "language", "location", "multi_head", "packed", "packed_optional", "shape", "subtype", "type",
    )  # fmt: skip

    type: str
    subtype: str
    boundary: bytes | None  # of a multipart
    encoding: str
    charset: str | None
    disposition: str | None
    filename: str | None
    cid: str | None
    location: str | None
    language: str | None
    flow: str | None
    has_fields: bool  # any field at all was found
    packed: str  # type, subtype and encoding as JSON, without brackets
    packed_optional: (
        str  # the fields of Part from charset on, each with a comma before it; what is empty at the end left out
    )
    shape: Shape
    head: bytes  # BODYSTRUCTURE of a leaf up to its encoding: '"text" "plain" (...) NIL NIL "7bit"'
    extension: bytes  # of a leaf: md5 dsp lang loc
    multi_head: bytes  # of a multipart: subtype and extension data, '"mixed" (...) NIL NIL NIL'


def mime_header(block: bytes, in_digest: bool) -> Mime:
    """The MIME header in `block`. Without a valid Content-Type it is text/plain, in a digest message/rfc822."""
    if len(block) <= 200:
        return _repeated(block, in_digest)
    return _parse_block(block, in_digest)


def _parse_block(block: bytes, in_digest: bool) -> Mime:
    found: dict[bytes, bytes] = {}
    for _, name, value in headers.fields(block[:MAX_MIME_HEADER]):
        found.setdefault(name.lower(), value)
    return mime_of(found, in_digest)


_repeated = lru_cache(maxsize=1024)(_parse_block)


def mime_of(found: Mapping[bytes, bytes], in_digest: bool) -> Mime:
    """The MIME header given as lower-case field name -> raw value."""
    content_type = found.get(b"content-type")
    if content_type is not None and (len(found) == 1 or (len(found) == 2 and b"content-transfer-encoding" in found)):
        simple = _SIMPLE_MULTIPART.match(content_type)
        if simple is not None:
            encoding = _encoding(found.get(b"content-transfer-encoding")) or "7bit"
            return _multipart(simple.group(1).lower(), simple.group(2) or simple.group(3), encoding)
    mime = Mime()
    mime.has_fields = bool(found)
    type_params: list[tuple[bytes, bytes]] = []
    match = None
    if content_type is not None:
        content_type = unfold(content_type[:MAX_MIME_HEADER])
        match = _TYPE.match(content_type)
    if match and content_type is not None:
        major, minor = match.group(1).lower(), match.group(2).lower()
        type_params = params.parse_params(content_type[match.end() :])
    elif in_digest and content_type is None:
        major, minor = b"message", b"rfc822"
    else:
        major, minor = b"text", b"plain"
        type_params = [(b"charset", b"us-ascii")]
    mime.type, mime.subtype = major.decode("ascii"), minor.decode("ascii")
    mime.encoding = _encoding(found.get(b"content-transfer-encoding")) or "7bit"
    named = dict(type_params)
    mime.boundary = named.get(b"boundary", b"").rstrip() or None if major == b"multipart" else None
    label = named.get(b"charset")
    mime.charset = decode_header(label[:80]).lower() or None if label else None
    mime.flow = None
    if minor == b"plain" and named.get(b"format", b"").lower() == b"flowed":
        mime.flow = "delsp" if named.get(b"delsp", b"").lower() == b"yes" else "flowed"

    dsp, mime.disposition, mime.filename = _disposition(found.get(b"content-disposition"))
    if mime.filename is None:
        mime.filename = params.decoded_param(type_params, b"name")
    cid = _text(found, b"content-id")
    mime.cid = decode_header(cid.strip(b"<> \t")) or None if cid else None
    location = _text(found, b"content-location")
    mime.location = decode_header(location) or None if location else None
    languages = _LANGUAGE.findall(params.without_comments(found.get(b"content-language", b"")[:200]))
    mime.language = ",".join(tag.decode("ascii") for tag in languages) or None

    mime.packed = f'"{mime.type}","{mime.subtype}",{_json(mime.encoding)}'
    optional = [mime.charset, mime.disposition, mime.filename, mime.cid, mime.location, mime.language, mime.flow]
    while optional and not optional[-1]:
        optional.pop()
    mime.packed_optional = "".join([",null" if value is None else "," + _json(value) for value in optional])
    mime.shape = (
        mime.type if mime.type in _TYPES else "",
        mime.subtype if mime.subtype in _SUBTYPES else "",
        mime.disposition if mime.disposition in _DISPOSITIONS else "",
        bool(mime.filename),
        mime.cid is not None,
    )

    imap_params = _imap_params(type_params)
    lang = string(languages[0]) if languages else b"NIL"
    if len(languages) > 1:
        lang = b"(" + b" ".join([string(tag) for tag in languages]) + b")"
    loc = nstring(location)
    if major == b"multipart":
        mime.head = mime.extension = b""
        mime.multi_head = b"%b %b %b %b %b" % (string(minor), imap_params, dsp, lang, loc)
    else:
        mime.multi_head = b""
        mime.head = b"%b %b %b %b %b %b" % (
            string(major),
            string(minor),
            imap_params,
            nstring(cid),
            nstring(_text(found, b"content-description")),
            string(mime.encoding.encode("utf-8")),
        )
        mime.extension = b"%b %b %b %b" % (nstring(_text(found, b"content-md5")), dsp, lang, loc)
    return mime


# A multipart with a boundary and nothing more; every message has another boundary, so remembering would not help.
_SIMPLE_MULTIPART = re.compile(
    rb"\s*multipart/([a-z-]{1,40})\s*;\s*boundary="
    rb"(?:\"([!#-\[\]-~](?:[ !#-\[\]-~]{0,98}[!#-\[\]-~])?)\"|([!#-'*-:<-\[\]-~]{1,100}))\s*\Z",
    re.I,
)


def _multipart(subtype: bytes, boundary: bytes, encoding: str) -> Mime:
    mime = Mime()
    mime.has_fields = True
    mime.type, mime.subtype = "multipart", subtype.decode("ascii")
    mime.boundary = boundary
    mime.encoding = encoding
    mime.charset = mime.flow = mime.disposition = mime.filename = mime.cid = mime.location = mime.language = None
    mime.packed = f'"multipart","{mime.subtype}",{_json(encoding)}'
    mime.packed_optional = ""
    mime.shape = ("multipart", mime.subtype if mime.subtype in _SUBTYPES else "", "", False, False)
    mime.head = mime.extension = b""
    mime.multi_head = b'"%b" ("boundary" "%b") NIL NIL NIL' % (subtype, boundary)
    return mime


_NO_DISPOSITION = (b"NIL", None, None)
_ENCODINGS = {b"7bit": "7bit", b"8bit": "8bit", b"base64": "base64", b"quoted-printable": "quoted-printable"}


def _text(found: Mapping[bytes, bytes], name: bytes) -> bytes | None:
    value = found.get(name)
    return unfold(value[:MAX_VALUE]) if value is not None else None


def _encoding(value: bytes | None) -> str | None:
    if value is None:
        return None
    if (usual := _ENCODINGS.get(value.strip())) is not None:
        return usual
    match = _TOKEN.match(params.without_comments(value[:200]))
    return decode_header(match.group(1)[:40]).lower() if match else None


def _imap_params(found: list[tuple[bytes, bytes]]) -> bytes:
    if not found:
        return b"NIL"
    return b"(" + b" ".join([string(name) + b" " + string(value) for name, value in found]) + b")"


def _disposition(value: bytes | None) -> tuple[bytes, str | None, str | None]:
    """BODYSTRUCTURE form, type and filename of a Content-Disposition (RFC 2183)."""
    if value is None:
        return _NO_DISPOSITION
    value = unfold(value[:MAX_MIME_HEADER])
    match = _TOKEN.match(value)
    if not match or b"=" in match.group(1):  # `filename="x"` without a type: RFC 2183 §2.8, unknown is attachment
        kind, rest = b"attachment", value
    else:
        kind, rest = match.group(1)[:80].lower(), value[match.end() :]
    found = params.parse_params(rest)
    imap = b"(%b %b)" % (string(kind), _imap_params(found))
    return imap, decode_header(kind) or None, params.decoded_param(found, b"filename")
