"""Command lines, paths, parameters and replies."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailcore.wire.smtp import command, params, path
from mailcore.wire.smtp.reply import CommandError, reply


def test_a_verb_is_read_in_any_case() -> None:
    assert command.parse_command(b"maIL FROM:<>") == ("MAIL", b"FROM:<>")
    assert command.parse_command(b"QUIT ") == ("QUIT", b"")


@pytest.mark.parametrize(
    "line", [b"", b" MAIL", b"\x16\x03\x01", b"MAIL\0", b"MAIL:", b"M\xc3\xa9", b"A" * 13, b"NOOP a\0b"]
)
def test_what_is_no_command(line: bytes) -> None:
    with pytest.raises(CommandError) as refused:
        command.parse_command(line)
    assert refused.value.code == 500


def test_each_verb_has_its_line_limit() -> None:
    assert command.parse_command(b"NOOP " + b"x" * 505).verb == "NOOP"
    for line in (b"NOOP " + b"x" * 506, b"MAIL " + b"x" * 2042, b"AUTH " + b"x" * 12_320):
        with pytest.raises(CommandError, match="too long"):
            command.parse_command(line)


@pytest.mark.parametrize("name", ["mx.example.org", "[192.0.2.1]", "[IPv6:2001:db8::1]", "localhost", "my_pc"])
def test_host_names(name: str) -> None:
    assert command.parse_helo(name.encode()) == name
    assert command.is_host_name(name)


@pytest.mark.parametrize("name", ["[1.2.3]", "[IPv6:fe80::1%eth0]", "a..b", "-a-", "(evil)", "a;b", "[", ""])
def test_no_host_names(name: str) -> None:
    assert not command.is_host_name(name)
    assert not set(command.header_safe(name)) & set('();<>"\\,')


@pytest.mark.parametrize("argument", [b"", b"two words", b"m\xc3\xbcnchen.example", b"a" * 256, b"a\tb"])
def test_helo_refuses_what_is_not_one_ascii_word(argument: bytes) -> None:
    with pytest.raises(CommandError):
        command.parse_helo(argument)


def test_bdat() -> None:
    assert command.parse_bdat(b"0 last") == (0, True)
    assert command.parse_bdat(b"86") == (86, False)
    for bad in (b"", b"-1", b"1 FIRST", b"1.0", b"LAST", b"9" * 16):
        with pytest.raises(CommandError):
            command.parse_bdat(bad)


def forward(argument: bytes) -> path.Path:
    return path.parse_forward_path(path.split_path("RCPT", argument)[0])


def reverse(argument: bytes) -> path.Path:
    return path.parse_reverse_path(path.split_path("MAIL", argument)[0])


@pytest.mark.parametrize(
    ("argument", "address"),
    [
        (b"TO:<ann@example.org>", "ann@example.org"),
        (b"to: <Ann@EXAMPLE.org> ", "Ann@example.org"),
        (b'TO:<"ann lee"@example.org>', '"ann lee"@example.org'),
        (b'TO:<"ann"@example.org>', "ann@example.org"),
        (b'TO:<"a\\>\\"<b"@example.org>', '"a><b"@example.org'.replace("><", '>\\"<')),
        (b"TO:<@relay.example,@other.example:ann@example.org>", "ann@example.org"),
        (b"TO:<ann@[192.0.2.7]>", "ann@[192.0.2.7]"),
        (b"TO:<ann%elsewhere.example@example.org>", "ann%elsewhere.example@example.org"),
        (b"TO:<elsewhere!ann@example.org>", "elsewhere!ann@example.org"),
        ("TO:<jörg@bücher.example>".encode(), "jörg@xn--bcher-kva.example"),
        (b"TO:<Postmaster>", "postmaster"),
    ],
)
def test_recipients(argument: bytes, address: str) -> None:
    assert forward(argument).address == address


def test_the_null_sender() -> None:
    assert reverse(b"FROM:<>") == ("", None, False)
    with pytest.raises(CommandError):
        forward(b"TO:<>")


@pytest.mark.parametrize(
    "argument",
    [
        b"",
        b"TO:",
        b"TO:ann@example.org",
        b"TO:<ann@example.org",
        b"TO:<ann>",
        b"TO:<ann@>",
        b"TO:<@example.org>",
        b"TO:<ann@example.org>SIZE=1",
        b"TO:<ann@example.org@elsewhere.example>",
        b"TO:<ann@elsewhere.example,ann@example.org>",
        b'TO:<"ann@example.org>',
        b"TO:<a\xff@example.org>",
        b"TO:<ann\x00@example.org>",
        b'TO:<"ann\r"@example.org>',
        b"TO:<ann@exa mple.org>",
        b"TO:<@relay.example:>",
        b"FROM:<ann@example.org>",
        b"TO:<" + b"a" * 65 + b"@example.org>",
        b"TO:<ann@" + b"a." * 200 + b"org>",
        "TO:<a\u202eb@example.org>".encode(),
    ],
)
def test_bad_recipients_are_a_syntax_error(argument: bytes) -> None:
    with pytest.raises(CommandError) as refused:
        forward(argument)
    assert refused.value.code == 501
    assert refused.value.reply.endswith(b"\r\n")
    assert refused.value.reply.count(b"\r\n") == 1


@given(st.binary(max_size=80))
def test_no_argument_breaks_the_path_parser(argument: bytes) -> None:
    for keyword, parse in ((b"TO:<", forward), (b"FROM:<", reverse), (b"", forward)):
        try:
            found = parse(keyword + argument)
        except CommandError:
            continue
        assert not set(found.address) & set("\r\n\0")


@pytest.mark.parametrize("evil", [b'"' * 2000, b"a" * 2000, b'"\\a' * 700, b"@a,@a:" * 330, b"\\" * 2000])
def test_a_hostile_path_costs_linear_time(evil: bytes) -> None:
    began = time.process_time()
    with pytest.raises(CommandError):
        forward(b"TO:<" + evil + b">")
    assert time.process_time() - began < 1, "this one takes a millisecond; backtracking, for ever"


OFFERED = ("SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "AUTH")


def test_mail_parameters() -> None:
    found = params.parse_mail_params("SIZE=1000 body=8bitmime SMTPUTF8  RET=hdrs ENVID=QQ314159 AUTH=<>", OFFERED)
    assert found == params.MailParams(1000, "8BITMIME", True, "HDRS", "QQ314159", "<>")
    assert params.parse_mail_params("", OFFERED) == params.MailParams()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("SIZE=", 501),
        ("SIZE", 501),
        ("SIZE=-1", 501),
        ("SIZE=1 SIZE=1", 501),
        ("SIZE=" + "9" * 30, 501),
        ("BODY=BINARY", 501),
        ("SMTPUTF8=1", 501),
        ("RET=ALL", 501),
        ("ENVID=a+0", 501),
        ("ENVID=" + "a" * 101, 501),
        ("=x", 501),
        ("SIZE=1=2", 501),
        ("REQUIRETLS", 555),
        ("X-UNKNOWN=1", 555),
        ("NOTIFY=NEVER", 555),
    ],
)
def test_bad_mail_parameters(text: str, code: int) -> None:
    with pytest.raises(CommandError) as refused:
        params.parse_mail_params(text, OFFERED)
    assert refused.value.code == code


def test_recipient_parameters() -> None:
    found = params.parse_rcpt_params("NOTIFY=success,Failure ORCPT=rfc822;Bob+2BGroup@example.org", ("NOTIFY", "ORCPT"))
    assert found == params.RcptParams("SUCCESS,FAILURE", "rfc822;Bob+2BGroup@example.org")
    assert params.parse_rcpt_params("ORCPT=utf-8;jörg\\x{E9}@example.org", ("ORCPT",)).orcpt


@pytest.mark.parametrize(
    "text",
    [
        "NOTIFY=NEVER,DELAY",
        "NOTIFY=DELAY,DELAY",
        "NOTIFY=",
        "NOTIFY=NEVER NOTIFY=NEVER",
        "ORCPT=ann@example.org",
        "ORCPT=rfc822;",
        "ORCPT=;x",
        "ORCPT=rfc822;a+b",
        "ORCPT=rfc822;" + "a" * 500,
    ],
)
def test_bad_recipient_parameters(text: str) -> None:
    with pytest.raises(CommandError) as refused:
        params.parse_rcpt_params(text, ("NOTIFY", "ORCPT"))
    assert refused.value.code == 501


@given(st.integers(-(10**9) + 1, 10**9 - 1), st.sampled_from(["R", "N", "RT", "NT"]), st.integers(-9, 9))
def test_a_time_and_a_priority_come_back_as_they_were(seconds: int, mode: str, priority: int) -> None:
    """RFC 2852 §4, RFC 6710 §4: what is passed on is what was taken; what is to come back is never late already."""
    by = params.By(seconds, mode)
    text = f"BY={by} MT-PRIORITY={priority}"
    if by.returns and seconds <= 0:
        with pytest.raises(CommandError):
            params.parse_mail_params(text, ("BY", "MT-PRIORITY"))
        return
    found = params.parse_mail_params(text, ("BY", "MT-PRIORITY"))
    assert (found.by, found.priority) == (by, priority)


@given(st.text(max_size=60))
def test_no_text_breaks_the_parameter_parser(text: str) -> None:
    for parse, allowed in ((params.parse_mail_params, OFFERED), (params.parse_rcpt_params, ("NOTIFY", "ORCPT"))):
        try:
            parse(text, allowed)
        except CommandError:
            continue


def test_replies() -> None:
    assert reply(250, "2.1.0", "Ok") == b"250 2.1.0 Ok\r\n"
    assert reply(250, "", "mx", "SIZE 1") == b"250-mx\r\n250 SIZE 1\r\n"


@given(st.text(max_size=600))
def test_no_text_breaks_out_of_a_reply(text: str) -> None:
    line = reply(550, "5.1.1", text)
    assert line.endswith(b"\r\n")
    assert line.count(b"\r") == line.count(b"\n") == 1
    assert len(line) <= 512
    assert line.isascii()
