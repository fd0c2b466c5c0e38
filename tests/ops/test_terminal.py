"""What a terminal says of an installation: a first start, and a second terminal that lacks its settings."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ops.installation import Installation, gone, installation


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("terminal") / "data") as made:
        made.start()
        made.wait_ready()
        yield made


def other_terminal(made: Installation) -> Installation:
    """Another terminal of the same installation, which has no settings but the data directory's."""
    other = Installation(made.data)
    for name in list(other.environ):
        if name.startswith("MAILSTEAD_") and name != "MAILSTEAD_DATA":
            del other.environ[name]
    return other


def test_a_first_start_says_at_once_what_takes_its_time(running: Installation) -> None:
    assert running.output().splitlines()[0].endswith(f"| first start: making a database in {running.data}/postgres")


def test_doctor_in_another_terminal_names_the_settings_that_it_lacks(running: Installation) -> None:
    assert "this terminal" not in running.run("doctor", "--no-dns").stdout
    done = other_terminal(running).run("doctor", "--no-dns")
    assert done.returncode == 0, "what runs is in order"
    lines = done.stdout.splitlines()
    assert lines[0].startswith("hint   settings: this terminal has other settings than `make up` that runs")
    exports = dict(pair.split("=") for pair in lines[1].partition("-> export ")[2].split())
    expected = {f"MAILSTEAD_{name}_PORT": str(running.ports[name]) for name in ("HTTP", "SMTP", "IMAP", "IMAPS")}
    assert expected.items() <= exports.items() and exports["MAILSTEAD_HOSTNAME"] == "mail.example.test"
    assert f"answering: {running.ports['HTTP']} (web), " in done.stdout
    other = other_terminal(running)
    other.environ |= exports
    assert "this terminal" not in other.run("doctor", "--no-dns").stdout


def test_records_to_publish_come_with_a_warning_in_another_terminal(running: Installation) -> None:
    assert running.run("domain", "show", "example.test").stderr == ""
    done = other_terminal(running).run("domain", "show", "example.test")
    assert done.returncode == 0
    assert f"MAILSTEAD_IMAPS_PORT={running.ports['IMAPS']}" in done.stderr.splitlines()[0]


def test_what_an_installation_that_was_killed_left_is_not_taken_for_one_that_runs(running: Installation) -> None:
    note = (running.data / "up.json").read_text()
    assert running.stop() == 0
    (running.data / "up.json").write_text(note)
    done = other_terminal(running).run("doctor", "--no-dns", "--json")
    assert json.loads(done.stdout) and "this terminal" not in done.stdout


def test_a_first_start_that_is_stopped_says_the_password_that_nobody_would_be_told_again(tmp_path: Path) -> None:
    with installation(tmp_path / "data") as made:
        made.start()
        made.wait_for("celery.beat: beat: Starting")
        assert made.stop(signal.SIGINT) == 0
        told = re.search(r"the first account is (\S+), its password (\S+)|with the password\s+(\S+)", made.output())
        assert told, made.output()
        assert gone(made, 60) == {}
