"""A real Thunderbird on a screen of its own, driven from inside by Marionette, Mozilla's protocol for automation.

Each script runs with the privileges of Thunderbird's own windows, so it can do what a click or a key does.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.waiting import PATIENCE

# What every script can use. `finished` waits for an operation on a folder that reports to a listener of URLs.
PRELUDE = """
const { MailServices } = ChromeUtils.importESModule("resource:///modules/MailServices.sys.mjs");
const server = () => MailServices.accounts.defaultAccount.incomingServer;
const folder = path => path.split("/").reduce((parent, name) => parent?.getChildNamed(name), server().rootFolder);
const pane = () => Services.wm.getMostRecentWindow("mail:3pane").gTabmail.currentAbout3Pane;
const message = (path, id) => folder(path)?.msgDatabase.getMsgHdrForMessageID(id);
const finished = start => new Promise((resolve, reject) => start({
    OnStartRunningUrl() {},
    OnStopRunningUrl(url, status) { status ? reject(new Error(`${url?.spec} failed: ${status}`)) : resolve(); },
    QueryInterface: ChromeUtils.generateQI(["nsIUrlListener"]),
}));
"""
QUIET: Mapping[str, bool | int | str] = {
    "marionette.port": 0,
    "app.donation.eoy.version.viewed": 999,
    "app.update.enabled": False,
    "datareporting.policy.dataSubmissionPolicyBypassNotification": True,
    "datareporting.healthreport.uploadEnabled": False,
    "toolkit.telemetry.server": "",
    "browser.safebrowsing.malware.enabled": False,
    "extensions.update.enabled": False,
    "mail.provider.suppress_dialog_on_startup": True,
    "mail.rights.version": 1,
    "mail.shell.checkDefaultClient": False,
    "mail.spotlight.firstRunDone": True,
    "mailnews.start_page.enabled": False,
    "mailnews.auto_config_url": "",
    "mailnews.mx_service_url": "",
    "messenger.status.reportIdle": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "",
    "toolkit.startup.max_resumed_crashes": -1,
}
START_LIMIT = 300.0
SCRIPT_LIMIT = PATIENCE


class ScriptError(AssertionError):
    """A script failed inside Thunderbird, or what it waited for did not come."""


@dataclass(slots=True)
class Thunderbird:
    """One that runs; `folder` holds its profile, its logs and, after a failure, a picture of its screen."""

    folder: Path
    _process: subprocess.Popen[bytes]
    _socket: socket.socket
    _sent: int = 0
    _buffer: bytearray = field(default_factory=bytearray)

    def call(self, name: str, **parameters: object) -> Any:
        """One command of Marionette; the octets are `length:[0, id, name, parameters]` and the like back."""
        self._sent += 1
        said = json.dumps([0, self._sent, name, parameters]).encode()
        self._socket.sendall(b"%d:%b" % (len(said), said))
        _, number, error, result = self.receive()
        assert number == self._sent
        if error is not None:
            raise ScriptError(f"{name}: {error.get('error')}: {error.get('message')}")
        return result

    def receive(self) -> Any:
        while b":" not in self._buffer:
            self._read()
        length, _, _ = self._buffer.partition(b":")
        end = len(length) + 1 + int(length)
        while len(self._buffer) < end:
            self._read()
        content = bytes(self._buffer[len(length) + 1 : end])
        del self._buffer[:end]
        return json.loads(content)

    def _read(self) -> None:
        piece = self._socket.recv(65536)
        if not piece:
            raise ScriptError(f"Thunderbird has gone:\n{self.output()}")
        self._buffer += piece

    def run(self, script: str, *arguments: object) -> Any:
        """What the body of an async function returns, run in Thunderbird's main window with `PRELUDE` and `args`."""
        body = (
            "const args = Array.from(arguments); const done = args.pop();"
            f"(async () => {{ {PRELUDE} {script} }})()"
            ".then(value => done([true, value ?? null]), error => done([false, `${error} ${error?.stack ?? ''}`]));"
        )
        worked, value = self.call("WebDriver:ExecuteAsyncScript", script=body, args=list(arguments), sandbox="system")[
            "value"
        ]
        if not worked:
            raise ScriptError(f"{value}\n{script}\n{self.seen()}")
        return value

    def until(self, condition: str, *arguments: object, seconds: float = SCRIPT_LIMIT) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + seconds
        while not self.run(f"return Boolean({condition});", *arguments):
            if time.monotonic() > deadline:
                raise ScriptError(f"never became true: {condition} {arguments}\n{self.seen()}")
            time.sleep(0.1)

    def quit(self) -> None:
        """Close it as a person does."""
        self.call("Marionette:Quit", flags=["eAttemptQuit"])
        self._process.wait(SCRIPT_LIMIT)

    def picture(self, path: Path) -> None:
        """What its main window shows, as PNG."""
        path.write_bytes(base64.b64decode(self.call("WebDriver:TakeScreenshot", full=False)["value"]))

    def log(self) -> str:
        """What it said and heard in IMAP, and did."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("protocol.log*")))

    def said(self) -> str:
        """The last lines that went either way."""
        lines = [line[:200] for line in self.log().splitlines() if "SendData" in line or "CreateNewLine" in line]
        return "\n".join(line.partition("IMAP]: ")[2] for line in lines[-40:])

    def output(self) -> str:
        return (self.folder / "output").read_text(errors="replace")[-2000:]

    def seen(self) -> str:
        """For the message of a failure: where the picture is, and the end of the logs."""
        picture = self.folder / "failure.png"
        with contextlib.suppress(ScriptError, OSError):
            self.picture(picture)
        return f"picture: {picture}\n{self.output()}\n{self.said()}"


@contextlib.contextmanager
def thunderbird(
    find: Callable[[str], str], folder: Path, settings: Mapping[str, bool | int | str]
) -> Iterator[Thunderbird]:
    """Start Xvfb and Thunderbird with the profile in `folder`, a new one if there is none; ends both."""
    profile = folder / "profile"
    profile.mkdir(exist_ok=True)
    (profile / "MarionetteActivePort").unlink(missing_ok=True)
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in {**QUIET, **settings}.items()]
    (profile / "user.js").write_text("\n".join(lines) + "\n")
    with contextlib.ExitStack() as stack:
        output = stack.enter_context((folder / "output").open("wb"))
        environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "MOZ_", "WAYLAND_"))},
            "HOME": str(folder),
            "DISPLAY": _screen(find, stack),
            "DBUS_SESSION_BUS_ADDRESS": "disabled:",
            "LC_ALL": "C.UTF-8",
            "NO_AT_BRIDGE": "1",
            "MOZ_LOG": "timestamp,IMAP:4",
            "MOZ_LOG_FILE": str(folder / "protocol.log"),
        }
        command = [find("thunderbird"), "--marionette", "--remote-allow-system-access", "--no-remote"]
        process = subprocess.Popen(
            [*command, "--profile", str(profile)],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        stack.callback(_end, process)
        port = _port(profile / "MarionetteActivePort", process, folder)
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=SCRIPT_LIMIT + 30))
        made = Thunderbird(folder, process, connection)
        made.receive()
        made.call("WebDriver:NewSession")
        made.call("WebDriver:SetTimeouts", script=int(SCRIPT_LIMIT * 1000))
        made.call("Marionette:SetContext", value="chrome")
        made.until("Services.wm.getMostRecentWindow('mail:3pane')?.gTabmail?.currentAbout3Pane?.threadTree")
        yield made


def _screen(find: Callable[[str], str], stack: contextlib.ExitStack) -> str:
    """The name of a new screen that Xvfb keeps in memory."""
    reader, writer = os.pipe()
    try:
        process = subprocess.Popen(
            [find("Xvfb"), "-displayfd", str(writer), "-screen", "0", "1280x900x24", "-nolisten", "tcp"],
            pass_fds=(writer,),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    finally:
        os.close(writer)
    stack.callback(_end, process)
    with os.fdopen(reader) as told:
        number = told.readline().strip()
    assert number, "Xvfb did not start"
    return f":{number}"


def _port(file: Path, process: subprocess.Popen[bytes], folder: Path) -> int:
    deadline = time.monotonic() + START_LIMIT
    while not file.exists() or not file.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            raise ScriptError(f"Thunderbird did not start:\n{(folder / 'output').read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)
    return int(file.read_text())


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, number)
            process.wait(60)
            return
