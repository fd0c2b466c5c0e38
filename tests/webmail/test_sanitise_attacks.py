"Known ways to get script, requests or our page's looks out of a mail, each by name; and properties over random markup."

from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest
import tinycss2
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailcore import mime
from webmail.css import PROPERTIES, declarations, stylesheet
from webmail.sanitize import ATTRIBUTES, TAGS, is_reasonable, sanitise
from webmail.views.message_body import _fragment, _Part, _render


def clean(html: str, images: bool = False) -> str:
    return sanitise(html, images=images, cid_url=lambda cid: f"data:image/png;base64,{cid}").body


class Seen(HTMLParser):
    """Everything an HTML parser finds in a fragment."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.comments: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def handle_decl(self, decl: str) -> None:
        self.comments.append(decl)

    def unknown_decl(self, data: str) -> None:
        self.comments.append(data)

    def handle_pi(self, data: str) -> None:
        self.comments.append(data)


def assert_harmless(html: str, images: bool = False) -> None:
    seen = Seen(html)
    assert not seen.comments
    for tag, attributes in seen.tags:
        assert tag in TAGS, tag
        for name, value in attributes.items():
            allowed = ATTRIBUTES["*"] | ATTRIBUTES.get(tag, set()) | ({"target", "rel"} if tag == "a" else set())
            assert name in allowed, (tag, name)
            assert not name.startswith("on")
            text = re.sub(r"[\x00-\x20]", "", value or "").lower()
            if name == "href":
                assert text.startswith(("https://", "http://", "mailto:", "tel:")), value
            if name in ("src", "background"):
                remote = ("https://", "http://") if images else ()
                assert text.startswith(("data:image/", *remote)), value
                assert not text.startswith("data:image/svg")
            if name == "style":
                assert "expression" not in text and "@import" not in text and "javascript:" not in text
                assert "position:fixed" not in text and "behavior" not in text and "-moz-binding" not in text
                if not images:
                    assert "url(" not in text or 'url("data:image/' in text


ATTACKS = {
    "script element": "<script>alert(1)</script>",
    "script in capitals with a source": "<SCRIPT SRC=//evil.test/x.js></SCRIPT>",
    "script split by a null": "<scr\0ipt>alert(1)</scr\0ipt>",
    "nested script tags": "<scr<script>ipt>alert(1)</scr</script>ipt>",
    "event handler": '<img src="data:image/png;base64,AA" onerror="alert(1)">',
    "event handler without quotes or space": "<img/src=x/onerror=alert(1)>",
    "event handler after a slash": "<p/onclick=alert(1)>x",
    "body onload": "<body onload=alert(1)>x</body>",
    "details ontoggle": "<details open ontoggle=alert(1)>x</details>",
    "javascript link": '<a href="javascript:alert(1)">x</a>',
    "javascript link with tab and newline": '<a href="java\tscr\nipt:alert(1)">x</a>',
    "javascript link with entities": '<a href="&#106;&#x61;vascript&colon;alert(1)">x</a>',
    "javascript link with leading control characters": '<a href="\x01\x02 javascript:alert(1)">x</a>',
    "vbscript link": '<a href="vbscript:msgbox(1)">x</a>',
    "data link": '<a href="data:text/html,<script>alert(1)</script>">x</a>',
    "blob link": '<a href="blob:https://mail.test/x">x</a>',
    "file link": '<a href="file:///etc/passwd">x</a>',
    "relative link to our own page": '<a href="/logout/">x</a>',
    "base element": '<base href="https://evil.test/"><a href="x">y</a>',
    "meta refresh": '<meta http-equiv="refresh" content="0;url=https://evil.test">x',
    "link stylesheet": '<link rel="stylesheet" href="https://evil.test/x.css">x',
    "link prefetch": '<link rel="dns-prefetch" href="//evil.test">x',
    "iframe": '<iframe src="https://evil.test"></iframe>',
    "iframe srcdoc": '<iframe srcdoc="<script>alert(1)</script>"></iframe>',
    "object and embed": '<object data="x.swf"></object><embed src="x.swf">',
    "applet and frameset": "<applet code=x></applet><frameset><frame src=x></frameset>",
    "form that asks for a password": (
        '<form action="https://evil.test"><input type=password name=p><button>Sign in</button></form>'
    ),
    "button with formaction": '<button formaction="javascript:alert(1)">x</button>',
    "svg script": "<svg><script>alert(1)</script></svg>",
    "svg onload": "<svg/onload=alert(1)>",
    "svg animate href": "<svg><a><animate attributeName=href values=javascript:alert(1) /><text>x</text></a></svg>",
    "svg use": (
        '<svg><use href="data:image/svg+xml,<svg id=x xmlns=http://ww'
        'w.w3.org/2000/svg><script>alert(1)</script></svg>#x"/></svg>'
    ),
    "svg image as data": '<img src="data:image/svg+xml;base64,PHN2Zy8+">',
    "svg foreignObject": "<svg><foreignObject><iframe src=javascript:alert(1)></foreignObject></svg>",
    "math with a link": '<math href="javascript:alert(1)">x</math>',
    "mathml maction": '<math><maction actiontype="statusline" xlink:href="javascript:alert(1)">x</maction></math>',
    "mXSS: math, mtext, table, mglyph, style": (
        '<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=alert(1)&gt;">'
    ),
    "mXSS: form in form through math": (
        "<form><math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>"
    ),
    "mXSS: svg, style, attribute": '<svg></p><style><a id="</style><img src=1 onerror=alert(1)>">',
    "mXSS: noscript": '<noscript><p title="</noscript><img src=x onerror=alert(1)>">',
    "mXSS: noembed": '<noembed><p title="</noembed><img src=x onerror=alert(1)>">',
    "mXSS: textarea": '<textarea><p title="</textarea><img src=x onerror=alert(1)>">',
    "mXSS: title": '<title><p title="</title><img src=x onerror=alert(1)>">',
    "mXSS: xmp": '<xmp><p title="</xmp><img src=x onerror=alert(1)>">',
    "mXSS: plaintext": "<plaintext><img src=x onerror=alert(1)>",
    "mXSS: template": "<template><img src=x onerror=alert(1)></template>",
    "mXSS: select and style": "<select><style></select><img src=x onerror=alert(1)></style>",
    "mXSS: annotation-xml": (
        '<math><annotation-xml encoding="text/html"><style><img src=x onerror=alert(1)></style></annotation-xml></math>'
    ),
    "mXSS: desc title in svg": "<svg><desc><style><img src=x onerror=alert(1)></style></desc></svg>",
    "mXSS: comment ended by --!>": "<!--x--!><img src=x onerror=alert(1)>-->",
    "mXSS: comment ended by >": "<!--><img src=x onerror=alert(1)>-->",
    "mXSS: CDATA": "<![CDATA[><img src=x onerror=alert(1)>]]>",
    "mXSS: processing instruction": "<?xml version='1.0'?><?php <img src=x onerror=alert(1)> ?>",
    "mXSS: backtick attribute": "<img alt=`` onerror=alert(1) src=x>",
    "mXSS: nested noscript in style": "<style><noscript></style><img src=x onerror=alert(1)></noscript>",
    "conditional comment": "<!--[if gte IE 4]><script>alert(1)</script><![endif]-->",
    "downlevel revealed comment": "<![if true]><script>alert(1)</script><![endif]>",
    "doctype with entity": '<!DOCTYPE x [<!ENTITY y SYSTEM "file:///etc/passwd">]>&y;',
    "unknown element with handler": "<x onmouseover=alert(1)>y</x>",
    "custom element with is": '<p is="x-y">z</p>',
    "slot and shadow root": '<div><template shadowrootmode="open"><script>alert(1)</script></template></div>',
    "image map": '<map name=m><area href="javascript:alert(1)" shape=default></map><img usemap=#m src=x>',
    "remote image": '<img src="https://track.test/p.gif">',
    "protocol-relative image": '<img src="//track.test/p.gif">',
    "image with backslashes": '<img src="\\\\track.test\\p.gif">',
    "srcset": '<img srcset="https://track.test/p.gif 2x">',
    "picture source": '<picture><source srcset="https://track.test/p.gif"><img></picture>',
    "lowsrc and dynsrc": '<img lowsrc="https://track.test/a" dynsrc="https://track.test/b">',
    "video poster": '<video poster="https://track.test/p.gif" src="https://track.test/v"></video>',
    "audio autoplay": '<audio autoplay src="https://track.test/a"></audio>',
    "background attribute": (
        '<table background="https://track.test/p.gif"><tr><td background="//track.test/q.gif">x</td></tr></table>'
    ),
    "link ping": '<a href="https://a.test" ping="https://track.test">x</a>',
    "input image": '<input type=image src="https://track.test/p.gif">',
    "style: background url": '<p style="background:url(https://track.test/p.gif)">x',
    "style: url without quotes, spaces and escapes": r'<p style="background:u\72l( \68ttps://track.test/p.gif )">x',
    "style: url in quotes with entities": '<p style="background:url(&quot;https://track.test/p.gif&quot;)">x',
    "style: comment inside url": '<p style="background:url/**/(https://track.test/p)">x',
    "style: image-set": "<p style=\"background-image:image-set('https://track.test/p.gif' 1x)\">x",
    "style: cross-fade": (
        '<p style="background-image:cross-fade(url(https://track.test/p), url(https://track.test/q), 50%)">x'
    ),
    "style: list image": '<ul style="list-style-image:url(https://track.test/p.gif)"><li>x</ul>',
    "style: list-style shorthand": '<ul style="list-style:square url(https://track.test/p.gif)"><li>x</ul>',
    "style: content url": '<p style="content:url(https://track.test/p.gif)">x',
    "style: cursor url": '<p style="cursor:url(https://track.test/p.cur),auto">x',
    "style: border-image": '<p style="border-image:url(https://track.test/p.gif) 30">x',
    "style: mask and filter": '<p style="mask:url(https://track.test/m);filter:url(https://track.test/f#x)">x',
    "style: custom property": '<p style="--x:url(https://track.test/p);background:var(--x)">x',
    "style: position fixed over the page": (
        '<div style="position:fixed;inset:0;z-index:9999;background:white">Sign in again</div>'
    ),
    "style: position with escapes": r'<div style="position:f\69xed;top:0">x</div>',
    "style: position important": '<div style="position: fixed !important">x</div>',
    "style: sticky and absolute": '<div style="position:sticky"></div><div style="position:absolute"></div>',
    "style: expression": '<p style="width:expression(alert(1))">x',
    "style: expression with comments": '<p style="width:exp/**/ression(alert(1))">x',
    "style: behavior and binding": '<p style="behavior:url(x.htc);-moz-binding:url(x.xml#a)">x',
    "style: javascript url": '<p style="background:url(javascript:alert(1))">x',
    "style: animation and transition": '<p style="animation:x 1s;transition:all 9s">x',
    "style: breaking out of the attribute": '<p style="color:red&quot; onclick=&quot;alert(1)">x',
    "style: closing brace": '<p style="color:red}body{background:url(https://track.test/p)">x',
    "unclosed tag at the end": "<img src=x onerror=alert(1) ",
    "attribute without end": '<a href="https://a.test title="x onclick=alert(1)>y',
    "duplicate attributes": '<a href="https://a.test" href="javascript:alert(1)">x</a>',
    "overlong scheme": '<a href="' + "a" * 5000 + 'javascript:alert(1)">x</a>',
    "UTF-7": "+ADw-script+AD4-alert(1)+ADw-/script+AD4-",
    "opener and target": '<a href="https://a.test" target="_top" rel="opener">x</a>',
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_attack_is_harmless(attack: str) -> None:
    once = clean(attack)
    assert_harmless(once)
    assert "alert(1)" not in re.sub(r'"[^"]*"', "", once) or "<" not in once.split("alert(1)")[0][-3:]
    assert_harmless(clean(once))  # and what a second parser makes of it is harmless too
    assert "track.test" not in once and "evil.test" not in once.replace("<p>", "")


def test_links_open_apart_and_say_nothing_about_us() -> None:
    (tag, attributes), *_ = Seen(clean('<a href="https://a.test/x?y=1&z=2" target="_top" rel="opener">x</a>')).tags
    assert tag == "a"
    assert attributes["target"] == "_blank"
    assert set(str(attributes["rel"]).split()) == {"noopener", "noreferrer", "nofollow"}
    assert attributes["href"] == "https://a.test/x?y=1&z=2"


def test_remote_images_are_counted_when_left_out_and_kept_when_asked_for() -> None:
    html = (
        '<img src="https://a.test/1"><img src="//a.test/2"><td background'
        '="http://a.test/3"><p style="background:url(https://a.test/4)">x'
    )
    html = f"<table><tr>{html}</table>"
    hidden = sanitise(html, images=False, cid_url=lambda cid: None)
    assert hidden.remote == 4
    assert "a.test" not in hidden.body
    shown = sanitise(html, images=True, cid_url=lambda cid: None)
    assert shown.remote == 0
    for address in ("https://a.test/1", "https://a.test/2", "http://a.test/3", "https://a.test/4"):
        assert address in shown.body


def test_inline_images_come_from_the_mail_or_not_at_all() -> None:
    parts = {"logo@x": "data:image/png;base64,AAAA"}
    html = '<img src="cid:logo@x" alt="Logo"><img src="CID:other@x"><p style="background:url(cid:logo@x)">x'
    body = sanitise(html, images=False, cid_url=parts.get).body
    assert body.count("data:image/png;base64,AAAA") == 2
    assert "cid:" not in body.lower()


def test_ordinary_mail_keeps_its_looks() -> None:
    html = (
        '<table width="600" bgcolor="#f4efe6" cellpadding="0" align="center"><tr><td valign="top" '
        'style="padding:10px 20px;'
        "font-family:'Open Sans',Arial,sans-serif;color:rgb(51,51,51)\">"
        "<h1>Hello</h1><p>A <b>bold</b> <i>word</i></p>"
        '<ul><li>one</li></ul><blockquote type="cite">quoted</blockquote></td></tr></table>'
    )
    found = sanitise(html, images=False, cid_url=lambda cid: None)
    for piece in (
        'width="600"',
        'bgcolor="#f4efe6"',
        "padding:10px 20px",
        "Open Sans",
        "rgb(51,51,51)",
        "<b>bold</b>",
        'type="cite"',
    ):
        assert piece in found.body, piece
    assert found.styled
    assert not sanitise("<p>Hello <b>you</b></p>", images=False, cid_url=lambda cid: None).styled


def test_words_of_a_removed_form_stay() -> None:
    assert "Your order" in clean("<form action=x><p>Your order</p><input name=q></form>")


SHEETS = {
    "import": "@import url(https://track.test/x.css); p{color:red}",
    "import with a string": '@import "https://track.test/x.css";',
    "font face": "@font-face{font-family:x;src:url(https://track.test/x.woff)} p{font-family:x}",
    "namespace": "@namespace url(https://track.test/);",
    "charset": '@charset "utf-7"; p{color:red}',
    "remote background by attribute selector": 'input[value^="a"]{background:url(https://track.test/a)}',
    "nested at rules": "@media screen{@import url(https://track.test/x);p{background:url(https://track.test/y)}}",
    "end of the element": "p{color:red}</style><script>alert(1)</script>",
    "end of the element in a string": (
        'p::before{content:"</style><script>alert(1)</script>"} a[title="</style>"]{color:red}'
    ),
    "comment tricks": "p{color:red/*</style>*/} <!-- x{color:blue} -->",
    "fixed position": "div{position:fixed;top:0;left:0}",
    "property escape": r"p{\70osition:fixed; backgr\6fund:url(https://track.test/p)}",
    "unbalanced braces": "p{color:red}}}} body{background:url(https://track.test)",
    "container and supports": (
        "@supports (x:y){p{background:url(https://track.test/p)}} @container (min-width:1px){p{color:red}}"
    ),
    "page and keyframes": (
        "@page{background:url(https://track.test/p)} @keyframes x{from{background:url(https://track.test/q)}}"
    ),
}


@pytest.mark.parametrize("sheet", SHEETS.values(), ids=SHEETS.keys())
def test_style_element_loads_nothing_and_stays_inside(sheet: str) -> None:
    for text in (
        stylesheet(sheet, lambda address: None).text,
        sanitise(f"<style>{sheet}</style>x", images=False, cid_url=lambda c: None).css,
    ):
        assert "track.test" not in text
        assert "<" not in text
        assert "@import" not in text and "@font-face" not in text
        assert "fixed" not in text
        assert text.count("{") == text.count("}")


def test_media_queries_and_selectors_are_kept() -> None:
    text = stylesheet(
        "@media (max-width:600px){.col > td{width:100%!important}} a:hover{color:#f00}", lambda address: None
    ).text
    assert "@media (max-width:600px){.col > td{width:100% !important}}" in text
    assert "a:hover{color:#f00}" in text


def test_body_attributes_become_rules() -> None:
    found = sanitise(
        '<body bgcolor="#ffe" style="margin:0;position:fixed" onload=x>x', images=False, cid_url=lambda c: None
    )
    assert found.css == "body{background-color:#ffe;margin:0}"


def _part(html: str, subject: str = "Hello") -> _Part:
    people = (mime.Addr("Mallory <script>", "m@evil.test"),)
    return _Part(html, True, mime.Summary(subject=subject, from_=people), datetime(2026, 1, 1, tzinfo=UTC), {})


def test_print_page_keeps_the_mail_away_from_its_header() -> None:
    page = _render(
        _part("<style>.print-head{display:none} body{color:red}</style>x", "</title><script>alert(1)</script>"),
        False,
        "page",
    )
    text = page.body.decode()
    assert "<script" not in text
    assert "@scope (.mail-body){.print-head{display:none}" in text.replace("\n", "")


def test_document_runs_nothing_and_has_no_origin() -> None:
    for images in (False, True):
        headers = dict(_render(_part("x"), images, "read").headers)
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "script-src" not in policy
        assert "sandbox allow-popups allow-popups-to-escape-sandbox" in policy
        assert "allow-scripts" not in policy and "allow-same-origin" not in policy
        assert ("https:" in policy) == images
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_hopeless_markup_is_shown_as_its_text() -> None:
    deep = "<div>" * 5000 + "the words" + "</div>" * 5000
    assert not is_reasonable(deep)
    with pytest.raises(ValueError):
        sanitise(deep, images=False, cid_url=lambda cid: None)
    text = _render(_part(deep), False, "read").body.decode()
    assert "the words" in text and text.count("<div") == 1
    assert "the words" in _fragment(_part(deep), "quote")


BITS = st.sampled_from(
    [
        *ATTACKS.values(),
        *SHEETS.values(),
        "<p>",
        "</p>",
        "<div style='color:red'>",
        "</div>",
        "<table><tr><td>",
        "<b>",
        "<!--",
        "-->",
        "<style>",
        "</style>",
        "<svg>",
        "</svg>",
        "<math>",
        "<mtext>",
        "<title>",
        '"',
        "'",
        "<a href=",
        ">",
        "=",
        "&lt;",
        "&#0;",
        "\x00",
        "\ufffe",
        "text",
        "<img src=",
        "<noscript>",
        "</noscript>",
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(BITS, st.text(max_size=12)), max_size=12).map("".join))
@example('<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=alert(1)&gt;">')
def test_random_mixtures_are_harmless_and_stable(html: str) -> None:
    found = sanitise(html, images=False, cid_url=lambda cid: None)
    assert_harmless(found.body)
    assert "<" not in found.css
    again = sanitise(found.body, images=False, cid_url=lambda cid: None)
    assert Seen(again.body).tags == Seen(found.body).tags


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="abcdefilnoprstu:;()\"'\\/*{}<>!-@#,.0123456789 \n", max_size=120))
def test_random_declarations_stay_declarations(text: str) -> None:
    kept = declarations(f"color:{text};background:{text};position:{text};{text}", lambda address: None).text
    assert "<" not in kept
    (rule,) = tinycss2.parse_stylesheet(f"p{{{kept}}}")
    for one in tinycss2.parse_blocks_contents(rule.content, skip_comments=True, skip_whitespace=True):
        assert one.type == "declaration" and one.lower_name in PROPERTIES
        assert not any(token.type == "url" for token in one.value)
        assert one.lower_name != "position" or one.value[-1].lower_value in ("static", "relative")


@pytest.mark.parametrize("piece", ["<div></x>", "<div><table></div></table>", "<div><object></div></object>"])
def test_end_tags_that_close_nothing_hide_no_depth(piece: str) -> None:
    assert not is_reasonable(piece * 20_000)
