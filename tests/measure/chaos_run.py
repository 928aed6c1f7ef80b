"""A driver that is killed: `python -m tests.measure.chaos_run CONFIG --engine ENGINE [--nodes 2] [--die-at STEP]`.

Its exit codes are those of `tessera`.

``--die-at``: SIGKILL before that step of the commit, counted over every change of the file system from the report on.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from contextlib import nullcontext
from typing import Any

from pipeline import config, run, storage
from pipeline.core.errors import ConfigError, TesseraError
from pipeline.run import fork_server as fork_servers


def two_nodes() -> None:
    """A local cluster of two nodes; this process drives it."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)


def die_at(step: int) -> None:
    """From the run's report on, count changes of the file system, and die before the ``step``-th."""
    done = [-1]

    def counted(real: Any) -> Any:
        def change(*args: Any) -> Any:
            if done[0] < 0 and str(args[0]).endswith("report.json"):
                done[0] = 0
            if done[0] == step:
                os.kill(os.getpid(), signal.SIGKILL)
            if done[0] >= 0:
                done[0] += 1
            return real(*args)

        return change

    for name in ("move", "remove", "remove_folder", "publish", "publish_new"):
        setattr(storage, name, counted(getattr(storage, name)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("config")
    parser.add_argument("--engine", choices=["local", "ray"], default="local")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--die-at", type=int)
    asked = parser.parse_args()
    if asked.die_at is not None:
        die_at(asked.die_at)
    try:
        loaded = config.load(asked.config)
        with fork_servers.started(loaded, asked.engine) if asked.engine == "local" else nullcontext() as server:
            prepared = run.prepare(loaded, False, server, asked.engine)
            if asked.nodes == 2:
                two_nodes()
            run.extract(prepared, show_progress=False)
        if ray := sys.modules.get("ray"):
            ray.shutdown()  # before the cluster's own end, which would take this process with it
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except TesseraError as error:
        print(error, file=sys.stderr)
        sys.exit(4)


if __name__ == "__main__":
    main()
