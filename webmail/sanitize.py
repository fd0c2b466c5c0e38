"""Makes a mail's HTML harmless: allow-lists of elements and attributes (nh3) and of CSS (tinycss2), no remote loads.

This is the first of three walls around HTML mail. The second is the document it becomes: its own request, its own
content security policy, a sandboxed frame without scripts and without our origin. The third, for what enters the
composer, is DOMPurify in the browser.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import nh3

from webmail import css

MAX_HTML = 8_000_000  # characters; data: images of some senders make bodies long
MAX_TAGS = 100_000
MAX_DEPTH = 500  # the parser's work per element grows with its depth


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


TAGS = _words(
    """
    a abbr acronym address article aside b bdi bdo big blockquote br caption center cite code col colgroup dd del
    details dfn dir div dl dt em figcaption figure font footer h1 h2 h3 h4 h5 h6 header hgroup hr i img ins kbd li
    main mark menu nav ol p pre q rp rt ruby s samp section small span strike strong sub summary sup table tbody td
    tfoot th thead time tr tt u ul var wbr
    """
)
# Removed with everything inside them; other unknown elements only lose their tags.
VOID_CONTENT = _words(
    """
    applet audio base canvas embed form iframe frame frameset head input link math meta noembed noframes noscript
    object option script select style svg template textarea title video xmp plaintext
    """
)
_UNWRAP = frozenset({"form", "head", "input", "link", "meta", "base"})  # their content is the mail's, or they have none

_CELL = {
    "align",
    "valign",
    "bgcolor",
    "background",
    "width",
    "height",
    "nowrap",
    "colspan",
    "rowspan",
    "headers",
    "scope",
}
ATTRIBUTES: dict[str, set[str]] = {
    "*": {"style", "class", "id", "dir", "lang", "title", "align"},
    "a": {"href", "name"},
    "bdo": {"dir"},
    "blockquote": {"cite", "type"},
    "col": {"span", "width", "align", "valign"},
    "colgroup": {"span", "width", "align", "valign"},
    "del": {"datetime"},
    "ins": {"datetime"},
    "details": {"open"},
    "font": {"color", "face", "size"},
    "hr": {"color", "noshade", "size", "width"},
    "img": {"src", "alt", "width", "height", "border", "hspace", "vspace"},
    "li": {"value", "type"},
    "ol": {"start", "type", "reversed"},
    "ul": {"type"},
    "table": {
        "bgcolor",
        "background",
        "border",
        "bordercolor",
        "cellpadding",
        "cellspacing",
        "width",
        "height",
        "role",
        "summary",
    },
    "tbody": {"valign", "bgcolor"},
    "thead": {"valign", "bgcolor"},
    "tfoot": {"valign", "bgcolor"},
    "tr": {"valign", "bgcolor", "height", "background"},
    "td": _CELL,
    "th": _CELL,
    "time": {"datetime"},
}
_LINK = re.compile(r"(?:https?://|mailto:|tel:)", re.I)
_REMOTE = re.compile(r"\s*(?:https?:)?//", re.I)
_CID = re.compile(r"\s*cid:(.{1,400})", re.I | re.S)
_RASTER = re.compile(r"data:image/(?:png|jpe?g|gif|webp|bmp);base64,[A-Za-z0-9+/=\s]{1,8000000}\Z", re.I)
_COLOUR = re.compile(r"#?[A-Za-z0-9]{1,24}\Z|rgba?\([\d\s,.%]{1,40}\)\Z", re.I)
_LENGTH = re.compile(r"\d{1,5}(?:\.\d{1,4})?\s*(?:px|%|\*)?\Z", re.I)
_NAME = re.compile(r"[\w:.-]{1,200}\Z")
_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9]{0,15})")
# These close themselves, so sloppy mail leaves them open without nesting.
_FLAT = _words(
    """
    p li td tr th dd dt tbody thead tfoot option br hr img input meta link col area base wbr embed param source
    track
    """
)
# No end tag inside closes what was opened outside.
_SCOPES = frozenset({"table", "object", "applet", "marquee", "template", "caption"})
_BODY = re.compile(r"<body\b([^>]{0,4000})>", re.I)
_BODY_ATTRIBUTE = re.compile(r"""(style|bgcolor|text|background)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>"']+))""", re.I)

LENGTHS = frozenset(
    {
        "width",
        "height",
        "border",
        "cellpadding",
        "cellspacing",
        "hspace",
        "vspace",
        "size",
        "span",
        "colspan",
        "rowspan",
    }
)
COLOURS = frozenset({"bgcolor", "bordercolor", "color"})

# A cid: reference (without the scheme) becomes the address to load it from; None leaves the image out.
CidUrl = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Clean:
    """A body made harmless."""

    body: str  # an HTML fragment
    css: str  # its style rules, never containing "<"
    remote: int  # remote images that were left out
    styled: bool  # it brings its own colours, so it needs the white sheet it was made for
    height: int  # about how tall it is at a width of 700, in CSS pixels


@dataclass(slots=True)
class _Filter:
    """One pass over one body: decides each attribute and counts what it leaves out."""

    images: bool
    cid_url: CidUrl
    styles: bool
    remote: int = 0
    styled: bool = False
    seen: dict[str, str] = field(default_factory=dict)

    def url(self, value: str) -> str | None:
        """The address of an image, or None when it is not to be loaded."""
        if found := _CID.match(value):
            return self.cid_url(found.group(1).strip())
        if _RASTER.match(value.strip()):
            return value.strip()
        if _REMOTE.match(value):
            if self.images:
                address = value.strip()
                return "https:" + address if address.startswith("//") else address
            self.remote += 1
        return None

    def style(self, value: str) -> str | None:
        if not self.styles:
            return None
        if value not in self.seen:
            kept = css.declarations(value, self.url)
            self.styled = self.styled or kept.coloured
            self.seen[value] = kept.text
        return self.seen[value] or None

    def attribute(self, tag: str, name: str, value: str) -> str | None:
        if name == "style":
            return self.style(value)
        if name in ("src", "background"):
            self.styled = self.styled or name == "background"
            return self.url(value)
        if name == "href":
            return value.strip() if _LINK.match(value.strip()) else None
        if name in COLOURS:
            self.styled = True
            return value if self.styles and _COLOUR.match(value.strip()) else None
        if name in LENGTHS:
            return value if _LENGTH.match(value.strip()) else None
        if name in ("id", "name"):
            return value if _NAME.match(value) else None
        if name in ("cite", "datetime", "summary", "class", "title", "alt", "face"):
            return value[:500]
        return value if len(value) <= 64 else None


def is_reasonable(html: str) -> bool:
    """Whether the body can be parsed in bounded time: not too long, not too many tags, not nested too deeply."""
    if len(html) > MAX_HTML:
        return False
    depth = deepest = number = 0
    scopes: list[Counter[str]] = [Counter()]  # what is open, by name: an end tag closes nothing else
    for closing, tag in _TAG.findall(html):
        number += 1
        name = tag.lower()
        if name in _FLAT:
            continue
        if not closing:
            depth += 1
            deepest = max(deepest, depth)
            scopes[-1][name] += 1
            if name in _SCOPES:
                scopes.append(Counter())
        elif name in _SCOPES:
            if len(scopes) > 1 and scopes[-2][name]:
                depth -= scopes.pop().total() + 1
                scopes[-1][name] -= 1
        elif scopes[-1][name]:
            scopes[-1][name] -= 1
            depth -= 1
    return number <= MAX_TAGS and deepest <= MAX_DEPTH


def sanitise(html: str, *, images: bool, cid_url: CidUrl, styles: bool = True) -> Clean:
    """Sanitise a body that `is_reasonable`.

    images: keep addresses of remote images; otherwise they are left out and counted. cid_url: see CidUrl.
    styles=False also drops every style, for text that is going to be edited. Raises ValueError for a body that is
    not reasonable.
    """
    if not is_reasonable(html):
        raise ValueError("too long or nested too deeply")
    html = html.replace("\0", "")
    which = _Filter(images, cid_url, styles)
    body = nh3.clean(
        html,
        tags=set(TAGS),
        clean_content_tags=set(VOID_CONTENT - _UNWRAP),
        attributes={tag: set(names) for tag, names in ATTRIBUTES.items()},
        attribute_filter=which.attribute,
        url_schemes={"http", "https", "mailto", "tel", "cid", "data"},
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
        strip_comments=True,
    )
    rules = _style_rules(html, which) if styles else ""
    return Clean(body, rules, which.remote, which.styled, _height(body))


def _style_rules(html: str, which: _Filter) -> str:
    """The filtered rules of all style elements outside comments, and what <body> itself says about its looks."""
    found: list[str] = []
    attributes = {}
    if match := _BODY.search(html):
        for name, *values in _BODY_ATTRIBUTE.findall(match.group(1)):
            attributes[name.lower()] = next((value for value in values if value), "")
    own = [attributes.get("style", "")]
    for name, prop in (("bgcolor", "background-color"), ("text", "color")):
        if _COLOUR.match(attributes.get(name, "").strip() or "?"):
            own.insert(0, f"{prop}:{attributes[name].strip()}")
    kept = css.declarations(";".join(own), which.url)
    which.styled = which.styled or kept.coloured
    if kept.text:
        found.append(f"body{{{kept.text}}}")
    for text in _style_elements(html):
        sheet = css.stylesheet(text, which.url)
        which.styled = which.styled or sheet.coloured
        found.append(sheet.text)
    return "\n".join(found)


def _style_elements(html: str) -> list[str]:
    """Contents of <style> elements outside comments (in them is what only Outlook reads). Linear: it only moves on."""
    lower = _CAPITALS.sub(lambda run: run.group().lower(), html)  # str.lower() would move offsets
    found: list[str] = []
    at = 0
    while (start := lower.find("<", at)) >= 0:
        if lower.startswith("<!--", start):
            end = lower.find("-->", start + 2)
            if end < 0:
                break
            at = end + 3
        elif lower.startswith("<style", start) and lower[start + 6 : start + 7] in (
            ">",
            " ",
            "\t",
            "\r",
            "\n",
            "\f",
            "/",
        ):
            opened = lower.find(">", start)
            end = lower.find("</style", opened)
            if opened < 0 or end < 0:
                break
            found.append(html[opened + 1 : end].replace("<!--", "").replace("-->", ""))
            at = end + 7
        else:
            at = start + 1
    return found


_CAPITALS = re.compile("[A-Z]+")
_BREAKS = re.compile(r"<(br|p|div|li|tr|h[1-6]|hr|blockquote)\b")
_MARKUP = re.compile(r"<[^>]*>")
_SPACE = re.compile(r"\s+")
_IMAGE_HEIGHT = re.compile(r'<img [^>]*?height="(\d{1,4})')


def _height(body: str) -> int:
    """A guess good enough for a first frame: lines of 95 characters, 22 pixels each, and the images' own heights."""
    lines = 0.0
    for piece in _BREAKS.split(body)[::2]:
        text = len(_SPACE.sub(" ", _MARKUP.sub("", piece)).strip())
        lines += -(-text // 95) if text else 0.25
    pictures = sum(int(height) for height in _IMAGE_HEIGHT.findall(body))
    return min(6000, 40 + int(lines * 22) + pictures)
