"""The text of an HTML part for search and previews. Not for display: that is the sanitiser's work.

A tokeniser of a few compiled patterns, linear in its input (a quoted attribute that never ends, an unclosed comment
or script cost one pass each), where a tree builder would spend time on nesting that nobody sees.
"""

from __future__ import annotations

import re
from html.entities import html5

# Comments, and elements whose content is no text. Unclosed ones reach to the end, as in browsers.
_DROPPED = re.compile(
    r"<(?:!--[^-]*(?:-(?!->)[^-]*)*(?:-->|\Z)"
    r"|script\b[^<]*(?:<(?!/script)[^<]*)*(?:</script[^>]*>?|\Z)"
    r"|style\b[^<]*(?:<(?!/style)[^<]*)*(?:</style[^>]*>?|\Z)"
    r"|title\b[^<]*)",
    re.I,
)
_ATTRIBUTES = r"""(?:[^<>"']++|"[^"]*+"|'[^']*+')*"""
# Elements inside a word or sentence leave no space behind.
_INLINE = re.compile(
    r"(?:<(?=[/a-wA-W])/?(?:a(?:bbr)?|b(?:d[io]|ig)?|c(?:ite|ode)|d(?:el|fn)|em|font|i(?:ns)?|kbd|mark|o:p|q"
    rf"|s(?:amp|mall|pan|tr(?:ike|ong)|u[bp])?|tt|u|var|wbr)(?:[\s/]{_ATTRIBUTES})?>)+",
    re.I,
)
_ENTITY = re.compile(r"&(?:#([0-9]{1,7})|#[xX]([0-9a-fA-F]{1,6})|([A-Za-z][A-Za-z0-9]{1,31}));?")
_QUOTE = re.compile(r"<blockquote\b|<div\b[^<>]{0,200}\bclass=[\"']?(?:gmail_quote|moz-cite-prefix|yahoo_quoted)", re.I)


# A tag, comment or dropped element; nearly all are told by the first alternative. Runs of them are looked up whole.
_MARKUP = (
    r"""<(?:/?[a-z](?<!<[st])[^<>"']*+>"""
    rf"|(?=[!st]){_DROPPED.pattern[1:]}"
    rf"|[a-z/!?](?:{_ATTRIBUTES}>|[^<>]*+>?))"
)
_RUN = re.compile(rf"({_MARKUP}(?:\s*+{_MARKUP}){{0,20}}\s*+)", re.I)


class _Runs(dict[str, str]):
    """What a run of markup leaves in the text, "" or a space: the same ones come again and again."""

    def __missing__(self, run: str) -> str:
        found = "" if _INLINE.fullmatch(run) else " "
        if len(run) <= 128:
            if len(self) >= 2048:
                self.clear()
            self[run] = found
        return found


_runs = _Runs()


def text_of_html(html: str) -> str:
    """The readable text of an HTML document or fragment; where markup stood, white space is not as it was. Never
    raises."""
    if "<" in html:
        pieces = _RUN.split(html)
        pieces[1::2] = map(_runs.__getitem__, pieces[1::2])
        html = "".join(pieces)
    if "&" in html:
        html = _ENTITY.sub(_entity, html)
    return html


def without_quotes(html: str) -> str:
    """What is before the quoted original in the HTML of a reply."""
    quote = _QUOTE.search(html)
    return html[: quote.start()] if quote else html


def _entity(match: re.Match[str]) -> str:
    decimal, hexadecimal, name = match.groups()
    if name:
        return html5.get(name + ";") or html5.get(name) or match.group()
    code = int(decimal) if decimal else int(hexadecimal, 16)
    if 0x80 <= code <= 0x9F:  # meant as windows-1252, as browsers read it
        return bytes([code]).decode("cp1252", "replace")
    if code == 0 or 0xD800 <= code <= 0xDFFF or code > 0x10FFFF:
        return "\ufffd"
    return chr(code)
