"""Runs every scenario on Mailstead and, when they are installed, on Postfix + Dovecot, and prints the ratios.

make bench                           everything, about 15 minutes on two cores
python -m tests.bench --quick        a tenth of the mail: to see that it works, not to quote
python -m tests.bench --only read    some scenarios; --rounds 3 for medians of rounds taken in turn
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from tests.bench import measure, report, scenarios, servers

SCENARIOS = ("inbound", "append", "logins", "read", "write", "idle")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the mail, one repetition")
    parser.add_argument(
        "--only", default=",".join(SCENARIOS), help="scenarios, comma separated: " + ", ".join(SCENARIOS)
    )
    parser.add_argument("--rounds", type=int, default=1, help="rounds of inbound and append, servers in turn")
    parser.add_argument("--messages", type=int, default=10_000, help="size of the large mailbox")
    parser.add_argument("--large", type=int, default=0, help="measure one mailbox of so many small messages too")
    parser.add_argument(
        "--processes", type=int, default=1, help="mail processes of Mailstead (the rivals use every core as they are)"
    )
    parser.add_argument("--without-rivals", action="store_true", help="Mailstead alone")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    options.only = [name for name in options.only.split(",") if name]
    if unknown := set(options.only) - set(SCENARIOS):
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    return options


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    options = arguments()
    share = 10 if options.quick else 1
    missing = [] if options.without_rivals else servers.rivals_missing()
    if missing:
        say(f"without Postfix and Dovecot: {', '.join(missing)} missing; Mailstead is measured alone")
    kinds = ["mailstead"] if missing or options.without_rivals else ["mailstead", "mdbox", "maildir"]
    figures: dict[str, dict[str, list[float]]] = {kind: {} for kind in kinds}
    running: dict[str, servers.Server] = {}

    def keep(kind: str, found: scenarios.Figures) -> None:
        for name, value in found.items():
            figures[kind].setdefault(name, []).append(value)
        say(f"  {kind}: " + ", ".join(f"{name} {value:.4g}" for name, value in found.items()))

    try:
        for kind in kinds:
            say(f"starting {kind}")
            folder = Path(tempfile.mkdtemp(prefix=f"bench-{kind}-"))
            os.chmod(folder, 0o755)
            if kind != "mailstead":
                running[kind] = servers.start_rival(kind, folder)
            else:
                server = running[kind] = servers.start_mailstead(folder, options.processes)
                keep(kind, {"start": server.started_in, "installation_mb": measure.memory_kb(server.roots) / 1024})
        for kind, server in running.items():
            # First, while no heap that others have left hides what a session takes.
            if "idle" in options.only:
                say(f"idle, {kind}")
                keep(kind, scenarios.idle(server, 400 // share))
        for round_number in range(options.rounds):
            for kind, server in running.items():
                if "inbound" in options.only:
                    say(f"inbound, {kind}")
                    keep(kind, scenarios.inbound(server, 3000 // share, round_number * 3000))
            for kind, server in running.items():
                if "append" in options.only:
                    say(f"append, {kind}")
                    keep(kind, scenarios.append(server, 1000 // share))
        repeat = 1 if options.quick else 5
        for kind, server in running.items():
            if "logins" in options.only:
                say(f"logins, {kind}")
                keep(kind, scenarios.logins(server, 400 if share == 1 else 64))
            if {"read", "write"} & set(options.only):
                say(f"filling the large mailbox, {kind}")
                scenarios.fill(server, max(1100, options.messages // share))
            if "read" in options.only:
                keep(kind, scenarios.read(server, repeat))
            if "write" in options.only:
                keep(kind, scenarios.write(server, repeat))
            if options.large:
                say(f"a mailbox of {options.large}, {kind}")
                keep(kind, scenarios.large(server, options.large))
    except servers.BenchError as error:
        say(f"bench: {error}")
        return 1
    finally:
        for server in running.values():
            server.stop()
    print(report.table(figures))
    if options.large:
        print("\n" + report.growth(figures, options.large))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
