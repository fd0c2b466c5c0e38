"""The page's own logic, called in the browser it is written for: addresses, search, quoting, plain text, dates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.webmail.conftest import Browsers, Web

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.programs("chromium")]

Call = Callable[..., Any]


@pytest.fixture
def page(chromium: Browsers, web: Web) -> Iterator[Page]:
    page = chromium.context(1280, 800, "light", False, True).new_page()
    page.goto(f"{web.url}/login/")
    yield page
    chromium.put_back()


@pytest.fixture
def call(page: Page) -> Call:
    """`call("text", "unflow", …)`: a function of one of the modules."""

    def run(module: str, name: str, *arguments: object) -> Any:
        script = "([module, name, given]) => import(`/static/js/${module}.js`).then(found => found[name](...given))"
        return page.evaluate(script, [module, name, list(arguments)])

    return run


def test_addresses_as_people_type_and_paste_them(call: Call) -> None:
    text = 'ann@x.test; "Smith, Bob" <bob@x.test>, Čeněk <c@x.test>\nd@x.test e@x.test, rubbish'
    assert call("contacts", "parseAddresses", text) == [
        {"name": "", "email": "ann@x.test"},
        {"name": "Smith, Bob", "email": "bob@x.test"},
        {"name": "Čeněk", "email": "c@x.test"},
        {"name": "", "email": "d@x.test"},
        {"name": "", "email": "e@x.test"},
        {"name": "", "email": "rubbish"},
    ]
    for good in ("a@b", "ä@bücher.test", "a+b@x.y.test"):
        assert call("contacts", "isValid", {"email": good})
    for bad in ("a", "a@", "@b", "a b@c", "a@b,c@d", "<a@b>"):
        assert not call("contacts", "isValid", {"email": bad})


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("roof", {"text": "roof"}),
        ("garden house", {"operator": "AND", "conditions": [{"text": "garden"}, {"text": "house"}]}),
        ('"garden house"', {"text": '"garden house"'}),
        ('from:"Ann Smith"', {"from": '"Ann Smith"'}),
        ('has:"attachment"', {"hasAttachment": True}),
        ("from:sofia", {"from": "sofia"}),
        ("is:unread", {"notKeyword": "$seen"}),
        ("larger:2M", {"minSize": 2_000_000}),
        ("https://x.test/a", {"text": "https://x.test/a"}),
        ("nosuch:field", {"text": "nosuch:field"}),
        (
            'subject:"three offers" -from:bob has:attachment',
            {
                "operator": "AND",
                "conditions": [
                    {"subject": '"three offers"'},
                    {"operator": "NOT", "conditions": [{"from": "bob"}]},
                    {"hasAttachment": True},
                ],
            },
        ),
    ],
)
def test_searches_mean(call: Call, typed: str, meant: object) -> None:
    # An empty Map cannot be passed in; a folder's name is looked up in it only for in:
    assert call("search", "filterOf", typed, []) == meant


def test_flowed_text_is_joined_and_other_text_left_alone(call: Call) -> None:
    flowed = "A line that \ngoes on.\n\n> quoted that \n> goes on\n-- \nAnn \nSmith"
    kind = ' text/plain; charset=utf-8; format="flowed"'
    assert call("text", "unflow", flowed, kind) == "A line that goes on.\n\n> quoted that goes on\n-- \nAnn Smith"
    assert call("text", "unflow", flowed, " text/plain") == flowed
    assert call("text", "unflow", "Wort \ntrennung", " text/plain; format=flowed; delsp=yes") == "Worttrennung"


def test_quotes_fold_with_the_line_that_announces_them(call: Call) -> None:
    text = "Yes.\n\nOn Monday, a very long name\n<a@b.test> wrote:\n> One\n>> Two\n\nMore of mine"
    assert call("text", "foldQuotes", text) == [
        {"quoted": False, "lines": ["Yes.", ""]},
        {"quoted": True, "lines": ["On Monday, a very long name", "<a@b.test> wrote:", "> One", ">> Two"]},
        {"quoted": False, "lines": ["", "More of mine"]},
    ]


def test_text_becomes_html_and_back(call: Call) -> None:
    text = "One <b>&amp;\n\n> quoted\n>> deeper\nlast"
    html = call("text", "textToHtml", text)
    assert "<b>" not in html and "&lt;b&gt;&amp;amp;" in html
    assert html.count("<blockquote>") == html.count("</blockquote>") == 2
    assert call("text", "quoteText", "a\n\n> b") == "> a\n>\n>> b"


def test_replies_go_to_the_right_people(page: Page) -> None:
    def person(name: str) -> dict[str, str]:
        return {"name": name, "email": f"{name}@x.test"}

    script = """([email, all]) => import('/static/js/compose/quote.js')
        .then(found => found.replyRecipients(email, new Set(['me@x.test']), all))"""

    def names(email: dict[str, Any], everyone: bool) -> tuple[list[str], list[str]]:
        found = page.evaluate(script, [email, everyone])
        return [one["name"] for one in found["to"]], [one["name"] for one in found["cc"]]

    email: dict[str, Any] = {"from": [person("ann")], "to": [person("me"), person("bob")]}
    email["cc"] = [person("cy"), person("ann")]
    assert names(email, False) == (["ann"], [])
    assert names(email, True) == (["ann", "bob"], ["cy"])
    assert names({**email, "replyTo": [person("list")]}, False) == (["list"], [])
    own = {"from": [person("me")], "to": [person("bob")], "cc": [person("cy")]}
    assert names(own, False) == (["bob"], [])
    assert names(own, True) == (["bob"], ["cy"])
    assert names({"from": [person("me")], "to": [person("me")]}, True) == (["me"], [])


def test_subjects_get_one_prefix(call: Call) -> None:
    for subject, prefix, wanted in (
        ("Lunch", "Re", "Re: Lunch"),
        ("Re: AW: Re[2]: Lunch", "Re", "Re: Lunch"),
        ("Fwd: Lunch", "Fwd", "Fwd: Lunch"),
        ("", "Re", "Re: "),
    ):
        assert call("format", "prefixedSubject", prefix, subject) == wanted


def test_sizes_and_names(call: Call) -> None:
    sizes = [call("format", "fileSize", size) for size in (0, 999, 1500, 120_000, 2_400_000)]
    assert sizes == ["0 B", "999 B", "1.5 kB", "120 kB", "2.4 MB"]
    assert call("format", "firstName", {"name": "Adams, Alice", "email": "a@x"}) == "Alice"
    assert call("format", "initials", {"name": "Étienne de Dubois", "email": "e@x"}) == "ÉD"
