"""Every command in every state, and every argument said wrongly: RFC 5321's answer, and the session stays in step."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailcore.smtp.session import COMMANDS
from tests.smtp.world import ANN, MESSAGE, Client, Village, running

pytestmark = [pytest.mark.django_db(transaction=True)]

PATIENT = {"max_errors": 10_000, "max_idle_commands": 10_000}
STATES = {
    "new": [],
    "helo": ["HELO client.example"],
    "ehlo": ["EHLO client.example"],
    "mail": ["EHLO client.example", "MAIL FROM:<far@elsewhere.example>"],
    "rcpt": ["EHLO client.example", "MAIL FROM:<far@elsewhere.example>", "RCPT TO:<ann@example.org>"],
    "bdat": ["EHLO client.example", "MAIL FROM:<>", "RCPT TO:<ann@example.org>", "BDAT 9\r\nFrom: a"],
}
# In the order of STATES: what RFC 5321 §4.1.4, §4.3.2 and RFC 3030 §2 ask for.
SAID = {
    "EHLO again.example": "250 250 250 250 250 250",
    "HELO again.example": "250 250 250 250 250 250",
    "LHLO again.example": "500 500 500 500 500 500",
    "MAIL FROM:<other@elsewhere.example>": "503 250 250 503 503 503",
    "MAIL FROM:<other@elsewhere.example> SIZE=9": "503 555 250 503 503 503",
    "RCPT TO:<bob@example.org>": "503 503 503 250 250 503",
    "RCPT TO:<nobody@example.org>": "503 503 503 550 550 503",
    "RCPT TO:<victim@elsewhere.example>": "503 503 503 550 550 503",
    "RCPT TO:<bob@example.org> NOTIFY=NEVER": "503 503 503 250 250 503",
    "DATA": "503 503 503 554 354 503",
    "BDAT 5 LAST\r\n\r\nb": "503 503 503 554 250 250",
    "RSET": "250 250 250 250 250 250",
    "NOOP": "250 250 250 250 250 250",
    "NOOP with any word": "250 250 250 250 250 250",
    "HELP": "214 214 214 214 214 214",
    "HELP MAIL": "214 214 214 214 214 214",
    "VRFY ann@example.org": "252 252 252 252 252 252",
    "EXPN sales": "502 502 502 502 502 502",
    "ETRN example.org": "502 502 502 502 502 502",
    "TURN": "502 502 502 502 502 502",
    "SEND FROM:<a@b.example>": "502 502 502 502 502 502",
    "AUTH PLAIN AGEAYg==": "503 502 502 502 502 502",
    "XYZZY": "500 500 500 500 500 500",
    "QUIT": "221 221 221 221 221 221",
}
# What is left of a message that was under way: a greeting and RSET end it, everything else leaves it alone.
ENDS = {"EHLO", "HELO", "RSET", "BDAT"}

# Said in the state "mail", which each of them leaves as it is.
WRONG = {
    **dict.fromkeys(
        [
            "",
            " ",
            " NOOP",
            "\t",
            "123",
            "MA\u00cfL FROM:<>",
            "MAIL\tFROM:<>",
            "NOOP\x00",
            "\x80\xff",
            "NO\rOP",
            "RCPT TO:<ann@example.org\r>",
        ],
        "500",
    ),
    **dict.fromkeys(["N" * 13, "NOOP" * 200, "X" * 100_000, "NOOP " + "x" * 600, "VRFY " + "x" * 600], "500"),
    **dict.fromkeys(["EHLO", "HELO", "EHLO a b", "EHLO \x07", "EHLO " + "x" * 256, "EHLO b\u00fccher.example"], "501"),
    **dict.fromkeys(["DATA now", "RSET x", "QUIT x", "STARTTLS x", "VRFY"], "501"),
    **dict.fromkeys(
        [
            *("RCPT", "RCPT TO", "RCPT TO:", "RCPT TO:<>", "RCPT TO:ann@example.org", "RCPT FROM:<ann@example.org>"),
            *("RCPT TO:<ann@example.org", "RCPT TO:ann@example.org>", "RCPT TO:<<ann@example.org>>", "RCPT TO:<ann>"),
            *("RCPT TO:<@example.org>", "RCPT TO:<ann@>", "RCPT TO:<ann@@example.org>", "RCPT TO:<ann@example..org>"),
            *("RCPT TO:<.ann@example.org>", "RCPT TO:<ann.@example.org>", "RCPT TO:<a b@example.org>"),
            *("RCPT TO:<ann@example.org>x", "RCPT TO:<ann@example.org>,<bob@example.org>", "RCPT TO:<ann@-x.example>"),
            *("RCPT TO:<ann@[127.0.0.1>", "RCPT TO:<ann@[300.0.0.1]>", 'RCPT TO:<"ann@example.org>'),
            *('RCPT TO:<"a\\"@example.org>', "RCPT TO:<ann@example.org\x01>", "RCPT TO:<ann(x)@example.org>"),
            *("RCPT TO:<" + "a" * 65 + "@example.org>", "RCPT TO:<ann@" + "x" * 64 + ".example>"),
            *("RCPT TO:<ann@" + "x." * 130 + "example>", "RCPT TO:<postmaster@>"),
        ],
        "501",
    ),
    **{
        f"RCPT TO:<{ANN}> {words}": "501 5.5.4"
        for words in [
            *("NOTIFY", "NOTIFY=", "NOTIFY=ALWAYS", "NOTIFY=NEVER,SUCCESS", "NOTIFY=SUCCESS,", "NOTIFY=,SUCCESS"),
            *("NOTIFY=SUCCESS,SUCCESS", "NOTIFY=NEVER NOTIFY=NEVER", "NOTIFY=SUCCESS DELAY=", "=NEVER", "-X=1"),
            *(
                "ORCPT",
                "ORCPT=",
                "ORCPT=ann@example.org",
                "ORCPT=rfc822;",
                "ORCPT=;ann",
                "ORCPT=rfc822;a+4",
                "ORCPT=rfc822;a+zz",
            ),
            *("ORCPT=rfc822;a+0D+0Ab", "ORCPT=rfc822;" + "a" * 500, "ORCPT=rfc822;\u00fc", "ORCPT=utf-8;\\x{0D}"),
            *(
                "ORCPT=utf-8;\\x{zz}",
                "ORCPT=utf-8;\\x{}",
                "ORCPT=utf-8;\\",
                "ORCPT=utf-8;\\x{110000}",
                "ORCPT=rf\u00fc;a",
                "ORCPT=" + "a" * 65 + ";a",
            ),
        ]
    },
    **{f"RCPT TO:<{ANN}> {words}": "555 5.5.4" for words in ["SIZE=1", "BODY=7BIT", "RET=FULL", "X", "BY=60;R"]},
}
# Said before a message, each followed by one that is said rightly.
WRONG_MAIL = {
    **dict.fromkeys(
        [
            *(
                "MAIL",
                "MAIL FROM",
                "MAIL FROM:",
                "MAIL TO:<a@b.example>",
                "MAIL FROM <a@b.example>",
                "MAIL FROM:a@b.example",
            ),
            *("MAIL FROM:<a@b.example", "MAIL FROM:a@b.example>", "MAIL FROM:<a>", "MAIL FROM:<a@b.example>SIZE=1"),
            *("MAIL FROM:< >", "MAIL FROM:<a@b.example>\tSIZE=1", "MAIL FROM:<a@[::1]>", "MAIL FROM:<a@[IPv6:::g]>"),
            *("MAIL FROM:<\x80@b.example>", "MAIL FROM:<@a.example,b@c.example>", "MAIL FROM:<a@b.example> \x01"),
        ],
        "501",
    ),
    **{
        f"MAIL FROM:<> {words}": "501 5.5.4"
        for words in [
            *("SIZE", "SIZE=", "SIZE=-1", "SIZE=1.5", "SIZE=\u0661", "SIZE=" + "9" * 21, "SIZE=1 SIZE=1", "SIZE==1"),
            *("BODY", "BODY=", "BODY=9BIT", "BODY=7BIT BODY=7BIT", "SMTPUTF8=", "SMTPUTF8=yes", "SMTPUTF8 SMTPUTF8"),
            *("RET", "RET=", "RET=ALL", "RET=FULL RET=FULL", "ENVID", "ENVID=" + "a" * 101, "ENVID=a+4", "ENVID=+0A"),
            *("ENVID=\u00fc", "AUTH=", "AUTH=a+g", "AUTH=" + "a" * 501, "BY=60", "BY=0;R", "MT-PRIORITY=10"),
        ]
    },
    **{
        f"MAIL FROM:<> {words}": "555 5.5.4"
        for words in ["X", "NOTIFY=NEVER", "ORCPT=rfc822;a", "HOLDFOR=60", "REQUIRETLS", "BY=9;R", "XYZZY=1"]
    },
    "MAIL FROM:<> SIZE=" + "9" * 20: "552 5.3.4",
    "MAIL FROM:<\u00fc@b.example>": "550 5.6.7",
    "MAIL FROM:<> " + "A" * 3_000: "500",
}


def code(reply: str) -> str:
    return reply[:3]


async def test_every_command_in_every_state(village: Village, tmp_path: Path) -> None:
    assert {line.partition(" ")[0] for line in SAID} >= set(COMMANDS) - {"STARTTLS"}, "a command is missing here"
    async with running(tmp_path, **PATIENT) as world:
        for at, state in enumerate(STATES):
            for line, replies in SAID.items():
                async with world.client(hello=False) as client:
                    for before in STATES[state]:
                        await client.expect(before, "250")
                    await said_in(client, state, line, replies.split()[at])


async def said_in(client: Client, state: str, line: str, expected: str) -> None:
    said = await client.ask(line)
    assert code(said) == expected, (state, line, said)
    if expected == "221":
        assert await client.closed()
        return
    if expected == "354":
        await client.expect(MESSAGE + b".", "250")
    await client.expect("NOOP", "250")
    if state == "rcpt":
        over = expected == "354" or line.partition(" ")[0] in ENDS
        await client.expect("DATA", "503" if over else "354")
        if not over:
            await client.expect(MESSAGE + b".", "250")


async def test_whatever_is_said_wrongly_during_a_message_leaves_it_alone(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path, **PATIENT) as world, world.client() as client:
        await client.expect("MAIL FROM:<far@elsewhere.example>", "250")
        wrong = []
        for line, answer in WRONG.items():
            said = await client.ask(line)
            if not said.startswith(answer) or "\n" in said or said[4] != "5":
                wrong.append((line[:100], said))
            await client.expect("NOOP", "250")
        assert not wrong, "\n".join(map(str, wrong))
        await client.expect(f"RCPT TO:<{ANN}>", "250")
        await client.expect("DATA", "354")
        await client.expect(MESSAGE + b".", "250")
        assert len(await world.mail(village.ann)) == 1


async def test_whatever_is_said_wrongly_of_a_sender_begins_no_message(village: Village, tmp_path: Path) -> None:
    async with running(tmp_path, **PATIENT) as world, world.client() as client:
        wrong = []
        for line, answer in WRONG_MAIL.items():
            said = await client.ask(line)
            if not said.startswith(answer):
                wrong.append((line[:100], said))
            await client.expect(f"RCPT TO:<{ANN}>", "503")
        assert not wrong, "\n".join(map(str, wrong))
        assert (await client.deliver(MESSAGE)).startswith("250")
