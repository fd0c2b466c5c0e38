"""The course of `manage.py up`: checks, servers, preparation, roles, the summary box, and the way down."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from mailcore.conf import Conf
from mailcore.errors import ConfigError
from mailcore.pulse import Pulse
from mailcore.supervise import embedded, launch, preflight, probes, roles, setup
from mailcore.supervise.keeper import Keeper, Spec, StartFailed, Stopped
from mailcore.supervise.output import Output

Spawn = Callable[[Callable[[], None], int], launch.Running]

# A Postgres that was killed replays its log first.
_RECOVERY_SECONDS = 900.0
_MIGRATION_SECONDS = 24 * 3600.0
_START_SECONDS = 90.0
# What Postgres and Valkey say at each start and stop; their last line is kept for an error message all the same.
_ROUTINE = re.compile(
    r"^LOG:  (starting PostgreSQL|listening on|database system (was shut down|is shut down|is ready)|shutting down"
    r"|received (fast|smart) shutdown|aborting any active|background worker .* exited with exit code 1"
    r"|skipping missing configuration file|checkpoint (starting|complete))"
    r"|LOG:  skipping missing configuration file"
    r"|^FATAL:  terminating .* due to administrator command"
    r"|WARNING Memory overcommit|Received SIGTERM scheduling|is now ready to exit"
)


def up(conf: Conf) -> int:
    """Run the whole installation until a signal; returns the exit status. Raises nothing: errors are one line."""
    began = time.monotonic()
    os.environ["MAILSTEAD_SUPERVISED"] = "1"  # the roles leave the time to us (mailcore.log)
    output = Output()
    try:
        data = preflight.DataDirectory(conf)
        data.end_leftovers()
        preflight.check_ports(conf)
        plan = _servers(conf, data, output)
    except ConfigError as error:
        print(f"mailstead: {error}", file=sys.stderr)
        return 1
    web = f"http://{probes.reachable(conf.bind)}:{conf.http_port}/"
    keeper = Keeper(output, lambda children: data.write_note(web, children))
    names: list[str] = []
    code = 1
    try:
        _start(conf, data, keeper, output, plan, names, began)
        keeper.run()
    except (ConfigError, StartFailed) as error:
        print(f"mailstead: {error}", file=sys.stderr)
    except Stopped:
        code = 0
        output.say("stopping")
    except Exception:
        # Whatever it is, nobody may be left running without a supervisor.
        traceback.print_exc()
    keeper.stop(tuple(reversed(names)), ("setup",), ("valkey",), ("postgres",))
    data.forget()
    output.say("stopped")
    return code


def _servers(conf: Conf, data: preflight.DataDirectory, output: Output) -> list[Spec]:
    """The servers that we bring ourselves; their addresses are announced to whoever needs them."""
    specs = []
    addresses = {}
    if not conf.database:
        folder = conf.data / "postgres"
        if not (folder / "cluster").exists():
            output.say(f"first start: making a database in {folder}")
        postgres = embedded.prepare_postgres(folder)
        addresses["database_url"] = postgres.url
        specs.append(_server_spec("postgres", postgres, lambda pid: embedded.postgres_ready(postgres, pid), 60))
    if not conf.redis:
        valkey = embedded.prepare_valkey(conf.data / "valkey")
        addresses["redis_url"] = valkey.url
        specs.append(_server_spec("valkey", valkey, lambda _: embedded.valkey_ready(valkey), 20))
    data.write_embedded(addresses)
    return specs


def _server_spec(name: str, server: embedded.Server, ready: Callable[[int], bool], grace: float) -> Spec:
    return Spec(
        name=name,
        spawn=server.spawn,
        ready=lambda pid, _: ready(pid),
        stop=server.stop,
        grace=grace,
        # Postgres survives SIGQUIT with its shared memory cleaned up; SIGKILL would leave that behind.
        kill=signal.SIGQUIT if name == "postgres" else signal.SIGKILL,
        hide=_ROUTINE,
        before=(lambda: embedded.end_leftover_postgres(server)) if name == "postgres" else (lambda: None),
    )


def _start(
    conf: Conf,
    data: preflight.DataDirectory,
    keeper: Keeper,
    output: Output,
    servers: list[Spec],
    names: list[str],
    began: float,
) -> None:
    for spec in servers:
        keeper.start(spec)
    roles.preload()  # while the servers start
    identity = launch.service_identity()
    data.hand_over(identity)
    privileges = launch.privileges_to_reach(identity, data.path / "tls", *(Path(each) / "module" for each in sys.path))
    if any(0 < getattr(conf, name) < 1024 for name, *_ in preflight.PORTS):
        privileges += (launch.CAP_LOW_PORTS,)

    def spawn(run: Callable[[], None], out: int) -> launch.Running:
        return launch.fork(run, out, identity, before=release, privileges=privileges)

    def release() -> None:
        keeper.close_in_child()
        data.close_in_child()

    keeper.wait_ready(seconds=_RECOVERY_SECONDS)
    result = _set_up(conf, keeper, spawn)
    if result.error:
        raise ConfigError(result.error)
    table = roles.table(conf)
    pulses = {role.name: Pulse() for role in table}
    try:
        for role in table:
            names.append(role.name)
            keeper.start(_role_spec(role, spawn, pulses))
        keeper.wait_ready(seconds=_START_SECONDS)
    except (StartFailed, Stopped):
        if result.admin:  # nobody will be told again
            output.say(f"the first account is {result.admin}, its password {result.password}")
        raise
    seconds = time.monotonic() - began
    from mailcore.supervise import summary  # brings rich, which nobody else needs

    servers_are_ours = (not conf.database, not conf.redis)
    output.raw(summary.box_text(conf, result, servers_are_ours, seconds, colour=output.terminal))


def _set_up(conf: Conf, keeper: Keeper, spawn: Spawn) -> setup.Result:
    reader, writer = os.pipe()

    def start(out: int) -> launch.Running:
        running = spawn(lambda: setup.run(conf, not conf.database, writer), out)
        os.close(writer)
        return running

    keeper.run_once(
        Spec("setup", start, ready=lambda *_: True, stop=signal.SIGTERM, grace=5, once=True), _MIGRATION_SECONDS
    )
    with os.fdopen(reader) as file:
        text = file.read()
    return setup.Result(**json.loads(text)) if text else setup.Result(error="the preparation ended without a result")


def _role_spec(role: roles.Role, spawn: Spawn, pulses: roles.Pulses) -> Spec:
    sign = pulses[role.name]

    def start(out: int) -> launch.Running:
        sign.beat()  # the time until the first sign of its own counts from here
        return spawn(lambda: roles.enter(role, sign), out)

    def ready(_pid: int, written: bytes) -> bool:
        return role.ready_line in written and (role.probe is None or role.probe())

    return Spec(
        name=role.name,
        spawn=start,
        ready=ready,
        answers=lambda: role.answers(pulses),
        stop=signal.SIGTERM,
        grace=role.grace,
        hide=role.hide,
    )
