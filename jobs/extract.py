"""The program of a Ray job: `python -m jobs.extract CONFIG [OPTIONS]` is `tessera extract` on the cluster of the job.

`tessera submit` starts it; with Tessera's folders next to it, plain `ray job submit` does too (docs/cluster.md).
"""

from __future__ import annotations

import os
import sys

from jobs import cli
from jobs._console import EXIT_CONFIG

ON_THIS_CLUSTER = ["--engine", "ray", "--set", "compute.address=null"]
"""Options with which a command joins the cluster that ``RAY_ADDRESS`` names, which Ray sets for each job."""


def main() -> None:
    """Entry of the program. Exit codes as those of `tessera extract`."""
    run_on_cluster("extract")


def run_on_cluster(command: str) -> None:
    """Runs a command of `tessera` with the arguments of this program, on the cluster of the job."""
    if not os.environ.get("RAY_ADDRESS"):
        words = f"RAY_ADDRESS: not set; submit this program as a Ray job, or run `tessera {command}`"
        print(f"jobs.{command}: {words}", file=sys.stderr)
        sys.exit(EXIT_CONFIG)
    sys.argv[1:] = [command, *sys.argv[1:], *ON_THIS_CLUSTER]
    cli.main()


if __name__ == "__main__":
    main()
