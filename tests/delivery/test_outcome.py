"""What replies and failures mean: the table that decides between delivered, returned and tried again."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailcore.delivery import backoff
from mailcore.delivery.outcome import Dropped, Reply, ReplyError, Stage, Verdict, of_error, of_reply, parse_reply
from mailcore.errors import Code, MailError

CONVERSATION = [Stage.GREETING, Stage.HELLO, Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.CONTENT]


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("code", [200, 250, 299, 354, 399])
def test_nothing_but_2xx_to_the_end_of_data_is_delivery(stage: Stage, code: int) -> None:
    delivered = of_reply(stage, Reply(code, "", "ok")).verdict is Verdict.DELIVERED
    assert delivered == (stage is Stage.CONTENT and code < 300)


@pytest.mark.parametrize("stage", list(Stage))
def test_no_failure_without_words_returns_mail(stage: Stage) -> None:
    for error in (TimeoutError(), Dropped(), ReplyError("x"), ConnectionResetError(104), ssl.SSLError(), KeyError()):
        assert of_error(stage, error).verdict in (Verdict.NEXT_HOST, Verdict.LATER, Verdict.PLAIN)
        assert of_error(stage, error).status.startswith("4.")


@pytest.mark.parametrize("stage", CONVERSATION)
def test_421_and_4xx_mean_not_now(stage: Stage) -> None:
    for code in (421, 450, 451, 452, 499):
        assert of_reply(stage, Reply(code, "", "later")).verdict is Verdict.NEXT_HOST


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.CONTENT])
def test_5xx_to_the_message_is_final(stage: Stage) -> None:
    result = of_reply(stage, Reply(550, "5.7.1", "no"))
    assert (result.verdict, result.status, result.code) == (Verdict.FAILED, "5.7.1", 550)


@pytest.mark.parametrize("stage", [Stage.GREETING, Stage.HELLO])
def test_5xx_to_our_greeting_is_the_hosts_trouble_and_not_the_messages(stage: Stage) -> None:
    assert of_reply(stage, Reply(554, "", "no")).verdict is Verdict.NEXT_HOST


def test_a_status_that_contradicts_its_code_is_not_believed() -> None:
    assert of_reply(Stage.RCPT, Reply(450, "5.1.1", "x")).status == "4.0.0"
    assert parse_reply([b"450 5.1.1 x"]) == Reply(450, "", "5.1.1 x")


def test_552_to_rcpt_without_a_status_is_an_old_servers_too_many() -> None:
    assert of_reply(Stage.RCPT, Reply(552, "", "too many recipients")).verdict is Verdict.NEXT_HOST
    assert of_reply(Stage.RCPT, Reply(552, "5.2.2", "mailbox full")).verdict is Verdict.FAILED


@pytest.mark.parametrize("code", list(Code))
def test_every_error_of_the_store_has_a_meaning(code: Code) -> None:
    result = of_error(Stage.LOCAL, MailError(code, "text for people", "private"))
    assert result.text == "text for people"
    assert result.verdict in (Verdict.FAILED, Verdict.LATER)
    assert result.status.startswith("5." if result.verdict is Verdict.FAILED else "4.")


def test_private_words_stay_private() -> None:
    assert "secret" not in of_error(Stage.MAIL, RuntimeError("secret")).text


@pytest.mark.parametrize(
    ("lines", "reply"),
    [
        ([b"250 ok"], Reply(250, "", "ok")),
        ([b"250"], Reply(250, "", "")),
        ([b"250 2.1.5 ok"], Reply(250, "2.1.5", "ok")),
        ([b"550-5.1.1 no", b"550-5.1.1 such", b"550 5.1.1 user"], Reply(550, "5.1.1", "no such user")),
        ([b"550 5.1.1"], Reply(550, "5.1.1", "")),
        ([b"220 mx.example ESMTP"], Reply(220, "", "mx.example ESMTP")),
        ([b"550 5.1.10x no"], Reply(550, "", "5.1.10x no")),
        ([b"550 \x00\xff"], Reply(550, "", "\ufffd\ufffd")),
    ],
)
def test_replies_are_read(lines: list[bytes], reply: Reply) -> None:
    assert parse_reply(lines) == reply


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=4))
def test_any_octets_are_a_reply_or_none(lines: list[bytes]) -> None:
    try:
        reply = parse_reply(lines)
    except ReplyError:
        return
    assert 200 <= reply.code <= 599
    assert str(reply).isprintable() or "\ufffd" in str(reply)


def test_the_schedule_waits_longer_and_longer_until_the_end() -> None:
    age, attempts, waits = 0.0, 0, []
    while True:
        attempts += 1
        wait = backoff.retry_in(attempts, age, seed=7)
        if wait is None:
            break
        waits.append(wait)
        age += wait
    assert waits[:-1] == sorted(waits[:-1])
    assert waits[0] >= 180
    assert backoff.MAX_AGE <= age < backoff.MAX_AGE + 120
    assert sum(1 for _ in waits) < 45


@given(st.integers(1, 10_000), st.floats(0, backoff.MAX_AGE * 2), st.integers(0, 2**40))
def test_a_retry_is_never_at_once_and_never_long_after_the_end(attempts: int, age: float, seed: int) -> None:
    wait = backoff.retry_in(attempts, age, seed)
    if wait is None:
        assert age >= backoff.MAX_AGE
    else:
        assert 60 <= wait <= 5 * 3600
        assert age + wait <= backoff.MAX_AGE + 60


def test_bounces_are_given_up_sooner() -> None:
    assert backoff.retry_in(5, 3 * 86400, 1) is not None
    assert backoff.retry_in(5, 3 * 86400, 1, is_bounce=True) is None


def test_a_dead_host_is_left_alone_for_a_while_and_a_living_one_is_not() -> None:
    memory = backoff.HostMemory()
    assert memory.down("192.0.2.1") is None
    memory.failed("192.0.2.1", "no answer")
    first = memory.down("192.0.2.1")
    memory.failed("192.0.2.1", "no answer")
    second = memory.down("192.0.2.1")
    assert first is not None and second is not None and second.until > first.until
    memory.worked("192.0.2.1")
    assert memory.down("192.0.2.1") is None


def test_the_memory_of_dead_hosts_is_bounded() -> None:
    memory = backoff.HostMemory()
    for n in range(memory.SIZE + 10):
        memory.failed(str(n), "x")
    assert memory.down("0") is None
    assert memory.down(str(memory.SIZE)) is not None
