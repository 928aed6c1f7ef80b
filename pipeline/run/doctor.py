"""Checks a config and all machines that would compute for it, without computing: ``tessera doctor CONFIG``."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from typing import Any, TextIO

from pipeline import engine as engines
from pipeline import sources, storage
from pipeline.config.bound import BoundConfig
from pipeline.core.errors import ConfigError
from pipeline.core.terminal import Console, count, print_wrapped
from pipeline.dataset.commit.folder import DatasetFolder
from pipeline.run.pipeline import node_check, pipeline_spec, wants_gpu
from pipeline.run.preparation import version_root
from pipeline.storage import settings as storage_settings


def examine(bound: BoundConfig, terminal: TextIO | None) -> dict[str, Any]:
    """Returns what each machine lacks, as plain values: ``engine``, ``nodes`` with ``node`` and ``problem`` (None:
    nothing is missing).

    Writes and removes a file in the output's folder. Joins the cluster, and waits for its nodes, as a run does.

    Args:
        terminal: where it says that it waits. None: nowhere.

    Raises:
        ConfigError: the cluster does not answer, the corpus cannot be listed, or it is empty.
    """
    config, root = bound.config, version_root(bound.config)
    storage_settings.use(config.storage)
    engine = engines.build(bound.engine, config.compute, bound.fork_server)
    source = sources.build(config.source)
    source.check("source")
    samples = next(iter(source.list()), None)
    if samples is None:
        raise ConfigError("source.path", f"no sample in {config.source.path!r}", "a corpus with files to read")
    on_gpu = wants_gpu(config) and engine.gpus(terminal) > 0
    check, spec = node_check(config, bound.features, root, on_gpu), pipeline_spec(bound, None, "doctor", root, on_gpu)
    output, name = DatasetFolder(root), f".doctor-{secrets.token_hex(8)}"
    folders = [root, config.output.path] if storage.is_local(root) else []
    new = [folder for folder in folders if not os.path.exists(folder)]
    output.publish(name, b"doctor")
    try:
        found = engine.check_nodes(spec, check.on_driver(samples, output.url(name)), terminal)
    finally:
        output.remove(name)
        with suppress(OSError):  # a run may write there already
            for folder in new:
                os.rmdir(folder)
    return {
        "engine": {"kind": bound.engine, "reason": bound.engine_reason},
        "nodes": [{"node": node, "problem": problem and str(ConfigError(*problem))} for node, problem in found],
    }


def show(document: dict[str, Any], console: Console) -> None:
    """Prints what `examine` returned."""
    engine = document["engine"]
    console.print(f"engine: {engine['kind']} ({engine['reason']})")
    for one in document["nodes"]:
        print_wrapped(console, f"node {one['node']}: {one['problem'] or 'has all that this config needs'}")


def check(document: dict[str, Any]) -> None:
    """Raises ``ConfigError`` if a machine lacks something."""
    bad = [one["node"] for one in document["nodes"] if one["problem"] is not None]
    if bad:
        found = f"{len(bad)} of {count(len(document['nodes']), 'node')} cannot work"
        raise ConfigError("doctor", found, "mend what is said of each")
