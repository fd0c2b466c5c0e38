"""CSS of a mail, filtered with tinycss2: known properties with values that load nothing and cover nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import tinycss2

MAX_CSS = 400_000  # characters of one style element
MAX_STYLE = 8_000  # of one style attribute
MAX_RULES = 4_000


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PROPERTIES = _words(
    """
    background background-color background-image background-position background-repeat background-size background-
    clip background-origin border border-bottom border-bottom-color border-bottom-left-radius border-bottom-right-
    radius border-bottom-style border-bottom-width border-collapse border-color border-left border-left-color
    border-left-style border-left-width border-radius border-right border-right-color border-right-style border-
    right-width border-spacing border-style border-top border-top-color border-top-left-radius border-top-right-
    radius border-top-style border-top-width border-width box-shadow box-sizing caption-side clear color column-gap
    columns display direction empty-cells flex flex-basis flex-direction flex-flow flex-grow flex-shrink flex-wrap
    float font font-family font-size font-style font-variant font-weight gap grid-template-columns height hyphens
    justify-content align-items align-content align-self letter-spacing line-break line-height list-style list-
    style-position list-style-type margin margin-bottom margin-left margin-right margin-top max-height max-width
    min-height min-width mso-hide object-fit opacity order outline overflow overflow-wrap padding padding-bottom
    padding-left padding-right padding-top position quotes row-gap table-layout tab-size text-align text-align-last
    text-decoration text-decoration-color text-decoration-line text-decoration-style text-indent text-overflow text-
    shadow text-transform unicode-bidi vertical-align visibility white-space width word-break word-spacing word-wrap
    writing-mode
    """
)
COLOURED = frozenset({"color", "background", "background-color", "background-image"})
POSITIONS = frozenset({"static", "relative"})
FUNCTIONS = _words(
    """
    rgb rgba hsl hsla hwb lab lch oklab oklch calc min max clamp linear-gradient radial-gradient repeating-linear-
    gradient repeat minmax
    """
)
# Values made of these characters alone can be split by hand: no strings, escapes, comments or functions hide in them.
_SIMPLE = re.compile(r"[A-Za-z0-9\s:;#.,%!+-]*\Z")

ImageUrl = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Kept:
    """CSS that may stay, and whether it sets colours."""

    text: str
    coloured: bool


def declarations(text: str, image: ImageUrl) -> Kept:
    """A style attribute's declarations. `image(address)` gives the address a background may load, or None."""
    if len(text) > MAX_STYLE:
        return Kept("", False)
    if _SIMPLE.match(text):
        return _simple(text)
    return _declarations(tinycss2.parse_blocks_contents(text, skip_comments=True, skip_whitespace=True), image)


@lru_cache(maxsize=4096)
def _simple(text: str) -> Kept:
    kept: list[str] = []
    coloured = False
    for one in text.split(";"):
        name, _, value = one.partition(":")
        name = name.strip().lower()
        value = value.strip()
        if (
            name not in PROPERTIES
            or not value
            or ":" in value
            or (name == "position" and value.lower() not in POSITIONS)
        ):
            continue
        coloured = coloured or name in COLOURED
        kept.append(f"{name}:{value}")
    return Kept(";".join(kept), coloured)


def stylesheet(text: str, image: ImageUrl) -> Kept:
    """A style element's rules: selectors with filtered declarations, and @media around them; nothing that loads."""
    rules = tinycss2.parse_stylesheet(text[:MAX_CSS], skip_comments=True, skip_whitespace=True)
    return _rules(rules[:MAX_RULES], image, 0)


def _rules(rules: Iterable[Any], image: ImageUrl, depth: int) -> Kept:
    kept: list[str] = []
    coloured = False
    for rule in rules:
        if rule.type == "qualified-rule":
            prelude = _harmless(rule.prelude)
            if not prelude:
                continue
            inner = _declarations(
                tinycss2.parse_blocks_contents(rule.content, skip_comments=True, skip_whitespace=True), image
            )
        elif rule.type == "at-rule" and rule.lower_at_keyword == "media" and rule.content is not None and depth < 2:
            prelude = "@media " + _harmless(rule.prelude)
            inner = _rules(
                tinycss2.parse_rule_list(rule.content, skip_comments=True, skip_whitespace=True), image, depth + 1
            )
        else:
            continue  # @import, @font-face, @namespace, @page, broken rules …
        if inner.text:
            kept.append(f"{prelude}{{{inner.text}}}")
            coloured = coloured or inner.coloured
    return Kept("\n".join(kept), coloured)


def _harmless(tokens: list[Any]) -> str:
    """A selector or media query as text that cannot end the style element or the rule; "" when it is odd."""
    if any(token.type in ("error", "{} block", "url", "at-keyword") for token in tokens):
        return ""
    return _safe(tinycss2.serialize(tokens).strip())[:1000]


def _safe(text: str) -> str:
    return text.replace("<", "\\3c ").replace("\0", "")


def _declarations(nodes: Iterable[Any], image: ImageUrl) -> Kept:
    kept: list[str] = []
    coloured = False
    for node in nodes:
        if node.type != "declaration" or node.lower_name not in PROPERTIES:
            continue
        value = _value(node.lower_name, node.value, image)
        if not value:
            continue
        coloured = coloured or node.lower_name in COLOURED
        kept.append(f"{node.lower_name}:{value}{' !important' if node.important else ''}")
    return Kept(";".join(kept), coloured)


def _value(name: str, tokens: list[Any], image: ImageUrl) -> str:
    pictures = name in ("background", "background-image")
    kept: list[Any] = []
    loads = 0
    for token in tokens:
        address = _url_of(token)
        if address is None:
            if token.type == "() block" or not _is_plain(token):
                return ""
            kept.append(token)
            continue
        found = image(address) if pictures else None
        if found:
            kept += tinycss2.parse_component_value_list(f'url("{_escaped(found)}")')
            loads += 1
        elif name == "background-image":
            return ""
    # As one list: written one by one, `url/**/(x)` would grow together.
    value = _safe(tinycss2.serialize(kept).strip())
    if value.lower().count("url(") != loads or (name == "position" and value.lower() not in POSITIONS):
        return ""
    return value if len(value) <= 4000 or loads else ""


def _url_of(token: Any) -> str | None:
    """The address of url(…), whether tinycss2 sees a token or a function with a string in it."""
    if token.type == "url":
        return str(token.value)
    if token.type == "function" and token.lower_name == "url":
        return "".join(part.value for part in token.arguments if part.type == "string")
    return None


def _is_plain(token: Any) -> bool:
    if token.type == "function":
        return token.lower_name in FUNCTIONS and all(_is_plain(part) for part in token.arguments)
    if token.type == "() block":
        return all(_is_plain(part) for part in token.content)
    return token.type in (
        "ident",
        "hash",
        "number",
        "percentage",
        "dimension",
        "string",
        "whitespace",
        "literal",
        "comment",
    )


def _escaped(address: str) -> str:
    return "".join(f"\\{ord(letter):x} " if letter in '"\\\n\r\f<>' else letter for letter in address)
