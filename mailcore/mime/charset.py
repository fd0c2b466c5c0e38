"""Octets to text: the charsets that occur in mail, their aliases, and a guess for undeclared 8-bit text.

Only the codecs listed here are reachable from a message: Python's own registry also holds decoders whose cost is
quadratic (punycode, idna) or which are no charsets at all.
"""

from __future__ import annotations

import re
from functools import lru_cache

_NOT_TEXT = re.compile("[\0\ud800-\udfff]+")
_LABEL_JUNK = re.compile(r"[^a-z0-9]+")

_CODECS = """
cp437 cp720 cp737 cp775 cp850 cp852 cp855 cp856 cp857 cp858 cp860 cp861 cp862 cp863 cp864 cp865 cp866 cp869 cp1006
cp1125 cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256 cp1257 cp1258 cp874 cp932 cp949 cp950 cp037 cp500 cp1140
big5hkscs euc_jp euc_jis_2004 gb18030 hz iso2022_jp iso2022_jp_1 iso2022_jp_2 iso2022_jp_3 iso2022_jp_ext iso2022_kr
iso8859_2 iso8859_3 iso8859_4 iso8859_5 iso8859_6 iso8859_7 iso8859_8 iso8859_10 iso8859_13 iso8859_14 iso8859_15
iso8859_16 johab koi8_r koi8_t koi8_u kz1048 mac_cyrillic mac_greek mac_iceland mac_latin2 mac_roman mac_turkish
ptcp154 shift_jis_2004 utf_7 utf_8 utf_16 utf_16_be utf_16_le utf_32 utf_32_be utf_32_le
"""

# As browsers and mail clients do, narrow labels are read as their supersets (WHATWG Encoding Standard).
_ALIASES = {
    "ascii": None, "usascii": None, "ansix341968": None, "iso646us": None, "us": None, "unknown8bit": None,
    "8bit": None, "7bit": None, "default": None, "xunknown": None, "unknown": None, "xuserdefined": None,
    "iso88591": "cp1252", "latin1": "cp1252", "l1": "cp1252", "iso885911": "cp874", "iso88599": "cp1254",
    "latin5": "cp1254", "latin2": "iso8859_2", "latin9": "iso8859_15", "iso88596i": "iso8859_6",
    "iso88596e": "iso8859_6", "iso88598i": "iso8859_8", "iso88598e": "iso8859_8", "ansi": "cp1252",
    "gb2312": "gb18030", "gbk": "gb18030", "xgbk": "gb18030", "euccn": "gb18030", "gb231280": "gb18030",
    "cp936": "gb18030", "windows936": "gb18030", "ms936": "gb18030", "hzgb2312": "hz", "big5": "cp950",
    "xxbig5": "cp950", "cnbig5": "cp950", "euckr": "cp949", "ksc56011987": "cp949", "ksc5601": "cp949",
    "ksx1001": "cp949", "uhc": "cp949", "windows949": "cp949", "shiftjis": "cp932", "sjis": "cp932",
    "xsjis": "cp932", "mskanji": "cp932", "windows31j": "cp932", "xeucjp": "euc_jp", "tis620": "cp874",
    "iso2022jpms": "iso2022_jp_ext", "cp50220": "iso2022_jp_ext", "utf8mb4": "utf_8", "unicode11utf8": "utf_8",
    "unicode11utf7": "utf_7", "unicode": "utf_16", "ucs2": "utf_16", "iso10646ucs2": "utf_16_be", "koi8": "koi8_r",
    "koi8ru": "koi8_u", "koi": "koi8_r", "dos874": "cp874", "macintosh": "mac_roman", "xmacroman": "mac_roman",
    "mac": "mac_roman", "xmaccyrillic": "mac_cyrillic", "ibm866": "cp866", "roman8": "cp1252",
}  # fmt: skip


def _table() -> dict[str, str | None]:
    table: dict[str, str | None] = {}
    for codec in _CODECS.split():
        key = codec.replace("_", "")
        table[key] = codec
        if key.startswith("cp"):
            for prefix in ("windows", "win", "ibm", "xcp", "ms", "xwindows"):
                table[prefix + key[2:]] = codec
        elif key.startswith("iso8859"):
            table["iso" + key[3:]] = table["8859" + key[7:]] = table["xiso" + key[3:]] = codec
        elif key.startswith("utf"):
            table["x" + key] = table["unicode" + key] = codec
    table.update(_ALIASES)
    return table


_LABELS = _table()


@lru_cache(maxsize=256)
def codec_for(label: str) -> str | None:
    """The Python codec for a charset label of a message; None when it is unknown or says nothing (us-ascii)."""
    return _LABELS.get(_LABEL_JUNK.sub("", label[:64].lower()))


def clean(text: str) -> str:
    """`text` without what Postgres cannot store: NUL and lone surrogates."""
    if text.isascii():
        return text.replace("\0", "") if "\0" in text else text
    return _NOT_TEXT.sub("", text)


def decode(data: bytes, label: str | None = None) -> str:
    """Text of `data` in the charset `label`. Undeclared or unknown: UTF-8 when it is valid, else windows-1252.

    Never raises; what cannot be decoded becomes U+FFFD. A byte order mark is dropped. The result is `clean`.
    """
    codec = codec_for(label) if label else None
    if codec is None or codec == "utf_8":
        text = _utf8_or_guess(data, declared=codec is not None)
    else:
        text = data.decode(codec, "replace")
        if codec in _MAY_YIELD_SURROGATES:
            text = _NOT_TEXT.sub("", text)
    if text.startswith("\ufeff"):
        text = text[1:]
    return text.replace("\0", "") if "\0" in text else text


_MAY_YIELD_SURROGATES = frozenset({"utf_7", "utf_16", "utf_16_be", "utf_16_le", "utf_32", "utf_32_be", "utf_32_le"})


def _utf8_or_guess(data: bytes, declared: bool) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as e:
        # A character cut at the end by a limit does not make the whole text something else.
        if e.start >= len(data) - 3 and e.reason == "unexpected end of data":
            return data[: e.start].decode("utf-8")
    if declared:
        text = data.decode("utf-8", "replace")
        # Mostly UTF-8 with some damage stays UTF-8; text that was declared wrongly has hardly a valid sequence.
        bad = text.count("\ufffd")
        if bad <= len(text) - bad - len(data.translate(None, _HIGH)):
            return text
    return data.decode("cp1252", "replace")


_HIGH = bytes(range(0x80, 0x100))
