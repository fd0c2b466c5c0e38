"""One target under libFuzzer, which takes over the process: `python -m tests.fuzz.engine TARGET FOLDER ARGUMENTS`."""

from __future__ import annotations

import sys

import atheris  # comes with `make fuzz`

COVERED = ["mailcore.wire", "mailcore.mime", "mailcore.delivery.outcome", "accounts.addresses"]


def main() -> None:
    name, folder, *arguments = sys.argv[1:]
    with atheris.instrument_imports(include=COVERED):
        from tests.fuzz.targets import TARGETS
    options = ["-print_final_stats=1", "-timeout=10", "-rss_limit_mb=1500", f"-artifact_prefix={folder}/"]
    atheris.Setup([name, *options, *arguments], TARGETS[name].check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
