"""manage.py as a process: its status, what goes to standard error, and what it says where something is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from accounts.models import Account

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ROOT / "mailcore" / "management" / "commands"


def manage(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """A real process, as a person or a script starts it."""
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        input=stdin,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.django_db(transaction=True)
def test_a_real_process_leaves_with_0_or_1_and_says_why_on_standard_error(database_url: str) -> None:
    parts = dict(pair.split("=", 1) for pair in database_url.split())
    base_url = os.environ["DATABASE_URL"]
    url = base_url.replace("/postgres?", f"/{parts['dbname']}?", 1)
    assert url != base_url

    def here(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return manage(*arguments, stdin=stdin, DATABASE_URL=url)

    assert here("domain", "add", "example.org").returncode == 0
    added = here("account", "add", "alice@example.org", "--password-stdin", stdin="correct horse\n")
    assert (added.returncode, added.stdout) == (0, "Account alice@example.org added.\n")
    assert Account.objects.get().check_password("correct horse")
    again = here("account", "add", "alice@example.org", "--generate")
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == "There is an account alice@example.org already.\n"
    verbs = "add|list|show|passwd|policy|disable|enable|remove"
    bare = here("account")
    assert bare.returncode == 1
    assert bare.stderr == f"manage.py account {verbs}: say which. `--help` after it explains it.\n"
    for wrong, why in (
        (["account", "fly"], "'disable', 'enable'"),
        (["account", "add", "x@y.z", "--quota", "many"], "not a size"),
        (["doctor", "--domain"], "expected one argument"),
    ):
        done = here(*wrong)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert done.stderr.startswith(f"manage.py {wrong[0]}") and done.stderr.endswith(" --help`.\n")
        assert why in done.stderr.replace("disable, enable", "'disable', 'enable'")
    assert json.loads(here("account", "list", "--json").stdout)[0]["address"] == "alice@example.org"
    assert here("alias", "add", "bücher@example.org", "alice@example.org").returncode == 0
    poor = manage("alias", "list", DATABASE_URL=url, PYTHONIOENCODING="ascii")
    assert (poor.returncode, poor.stderr) == (0, "") and "b\\xfccher@example.org" in poor.stdout
    poor = manage("alias", "list", "--json", DATABASE_URL=url, PYTHONIOENCODING="ascii")
    assert json.loads(poor.stdout)[0]["address"] == "bücher@example.org"


def test_without_a_database_the_line_says_what_to_start(tmp_path: Path) -> None:
    for environment in ({"DATABASE_URL": ""}, {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x"}):
        done = manage("account", "list", MAILSTEAD_DATA=str(tmp_path), **environment)
        assert done.returncode == 1 and done.stdout == ""
        assert "make up" in done.stderr and done.stderr.count("\n") == 1
        assert environment["DATABASE_URL"] or done.stderr.startswith(f"nothing is running in {tmp_path}: ")
        migrating = manage("migrate", MAILSTEAD_DATA=str(tmp_path), **environment)
        assert (migrating.returncode, migrating.stdout) == (1, "")
        assert migrating.stderr.startswith("mailstead: the database cannot be used: start `make up` first")
        assert migrating.stderr.count("\n") == 1
    serving = manage("mailserver", MAILSTEAD_DATA=str(tmp_path), DATABASE_URL="")
    assert (serving.returncode, serving.stderr.count("\n")) == (1, 1)
    assert serving.stderr.startswith(f"nothing is running in {tmp_path}: ")


def test_help_is_there_before_an_installation_is(tmp_path: Path) -> None:
    nowhere = {
        "MAILSTEAD_DATA": str(tmp_path / "none"),
        "MAILSTEAD_SECRET_KEY": "",
        "DATABASE_URL": "",
        "REDIS_URL": "",
    }
    for arguments in ((), ("help",), ("--help",)):
        done = manage(*arguments, **nowhere)
        assert (done.returncode, done.stderr) == (0, "")
        told = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if line.startswith("  "))
        assert set(told) == {path.stem for path in COMMANDS.glob("[a-z]*.py")} and told["alias"].startswith("addresses")
    for arguments, said in (
        (("help", "account"), "Set a password"),
        (("account", "passwd", "--help"), "--password-stdin"),
        (("up", "--help"), "Run everything in the foreground"),
        (("mailserver", "-h"), "--reuse-port"),
    ):
        done = manage(*arguments, **nowhere)
        assert (done.returncode, done.stderr) == (0, "") and said in done.stdout and "--settings" not in done.stdout
    assert not (tmp_path / "none").exists()


def test_an_interpreter_without_the_packages_is_told_which_one_to_use() -> None:
    done = subprocess.run(
        [sys._base_executable, "-I", "-S", str(ROOT / "manage.py"), "domain", "list"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "mailstead: run `make up` once, then `.venv/bin/python manage.py …`\n"


def test_nobody_who_reads_the_output_no_further_sees_a_traceback() -> None:
    command = [sys.executable, str(ROOT / "manage.py"), "showconfig"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as reading:
        assert reading.stdout is not None and reading.stderr is not None
        reading.stdout.close()
        assert reading.stderr.read() == b"" and reading.wait(60) == 1
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=60, check=False, env=environment)
    assert done.stderr.startswith(b"mailstead: the output cannot be written") and done.returncode == 1
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command], stderr=subprocess.PIPE, timeout=60, check=False
    )
    assert (closed.stderr, closed.returncode) == (b"", 0)
