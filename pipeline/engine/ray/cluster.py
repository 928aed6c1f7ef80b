"""The Ray cluster of a run: joins or starts it, waits for its nodes, and ends a run that has no room left."""

from __future__ import annotations

import _thread
import contextlib
import gc
import logging
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import TextIO

import ray
from ray.autoscaler.sdk import request_resources
from ray.data import DataContext

from pipeline.config.models import ComputeConfig
from pipeline.core.errors import ConfigError, TesseraError, describe
from pipeline.core.system.cpus import available_cpus
from pipeline.core.system.periodic_task import PeriodicTask
from pipeline.core.terminal import Console, print_wrapped
from pipeline.engine.progress import Progress
from pipeline.engine.ray._placement import Demand, fits_once
from pipeline.engine.ray._session import TOKEN_VARIABLES, make_session_folder, make_token
from pipeline.engine.ray.nodes import capacities, living
from pipeline.engine.ray.pools import PoolSize, without_room

_ANSWER_S = 10.0
"""Longest wait for the head of a cluster to accept a connection."""
_JOIN_TRIES = 5
"""How often Ray tries to join a cluster, once a second."""
_NODES_EVERY_S = 0.5
"""Seconds between two looks for a first node."""
_CHECK_EVERY_S, _NO_ROOM_S = 5.0, 300.0
"""Seconds between two checks of the nodes, and without room until the run ends."""


def check(compute: ComputeConfig) -> None:
    """Raises ``ConfigError`` if nothing listens at the cluster's address. Ray would wait for it without a message."""
    address, where = compute.cluster()
    found = re.fullmatch(r"(?:ray://)?([^/:]+):(\d+)", address or "")
    if found is not None and not ray.is_initialized():
        try:
            socket.create_connection((found[1], int(found[2])), timeout=_ANSWER_S).close()
        except OSError as error:
            raise _no_answer(str(address), where, error) from error


def start(compute: ComputeConfig) -> None:
    """Joins the cluster that the config or ``RAY_ADDRESS`` names, or starts a local one, unless this process has one.

    Sets the options of Ray Data in any case.

    Raises:
        ConfigError: the cluster does not answer.
        TesseraError: Ray does not start, for example on a machine that is too busy.
    """
    if not ray.is_initialized():
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        # Ray ends a worker that is idle for a second; the next one takes 4 s of a core to import Ray Data
        os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "3600000")
        address, where = compute.cluster()
        if address:  # Ray tries once a second, also if the cluster wants another token
            os.environ.setdefault("RAY_gcs_server_port_wait_time_s", str(_JOIN_TRIES))
        cores = compute.num_cpus or max(2, available_cpus())
        # without "local" Ray joins a cluster that `ray start` left on this machine
        local = {"address": "local", "num_cpus": cores, "include_dashboard": False}
        on_term = signal.getsignal(signal.SIGTERM)
        try:
            if not address:
                make_token()
            options = {"address": address} if address else {**local, "_temp_dir": make_session_folder()}
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        except Exception as error:
            if address is not None:
                raise _no_answer(address, where, error) from error
            if isinstance(error, TypeError | ValueError):  # a defect of Tessera: options that this Ray does not take
                raise
            problem = f"Ray does not start on this machine ({describe(error)})"
            raise TesseraError(f"{problem}: mend that, or run again when the machine is less busy") from error
        finally:
            if threading.current_thread() is threading.main_thread():  # Ray's handler exits with the signal's number
                signal.signal(signal.SIGTERM, on_term)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # a block may take long: many rows that hang until their limit, or a slow model
    context.execution_no_progress_timeout_s = -1
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def wait_for_nodes(compute: ComputeConfig, terminal: TextIO | None) -> None:
    """Waits for a node with a CPU, if the cluster has none yet, and asks its autoscaler for one, and for what the pools
    declare. Goes on when all of that is there, or with what there is after ``compute.wait_for_nodes_s``.

    Args:
        terminal: where it says that it waits.

    Raises:
        ConfigError: no node came.
    """
    if _has_all(compute):
        return
    patience_s = compute.wait_for_nodes_s
    pools = compute.pools.items()
    demands = {name: Demand(one.num_cpus or 1.0, one.num_gpus or 0.0, one.min_actors or 1) for name, one in pools}
    least = {name: Demand(one.num_cpus or 0.0, one.num_gpus or 0.0, 1) for name, one in pools}
    if terminal is not None:
        missing = "for the GPUs that the pools declare" if capacities() else "with a CPU"
        words = f"the cluster has no node {missing} yet: asking its autoscaler for one, waiting for at most"
        print_wrapped(Console(file=terminal), f"{words} {patience_s:g} s")
        terminal.flush()
    bundles = [{"CPU": one.cpus, **({"GPU": one.gpus} if one.gpus else {})} for one in demands.values()]
    request_resources(bundles=bundles)
    try:
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline and not (_has_all(compute) and fits_once(least, capacities())):
            time.sleep(_NODES_EVERY_S)
    finally:
        request_resources(bundles=[])
    if not capacities():
        raise ConfigError(
            "compute.wait_for_nodes_s",
            f"no node with a CPU joined the cluster within {patience_s:g} s",
            "start nodes with CPUs, let the cluster's autoscaler start some, or wait longer",
        )


def _has_all(compute: ComputeConfig) -> bool:
    """Returns whether there is a node, and, if a cluster may get more, one for each pool that declares GPUs."""
    if not capacities():
        return False
    if compute.cluster()[0] is None or compute.missing_gpus == "use_cpu":
        return True
    pools = compute.pools.items()
    return fits_once(
        {name: Demand(one.num_cpus or 0.0, one.num_gpus, 1) for name, one in pools if one.num_gpus}, capacities()
    )


@contextlib.contextmanager
def capacity_watchdog(
    pools: dict[str, PoolSize], task_cpus: float, progress: Progress, before: dict[str, str]
) -> Iterator[None]:
    """Ends the body if a pool has no room for an actor any more. Ray would wait for ever. Reports nodes that come and
    go in one line each; Ray's own messages are in its logs.

    Args:
        before: id and name of the nodes that were there when the run began.

    Raises:
        TesseraError: for ``_NO_ROOM_S`` seconds no row was finished, and one actor of each pool did not fit.
    """
    lost: list[str] = []
    since: float | None = None
    rows_before, there = 0, before

    def check_room() -> bool:
        nonlocal since, rows_before, there
        with contextlib.suppress(Exception):  # if the cluster does not answer, the run itself raises
            now = living()
            for node in there.keys() - now.keys():
                progress.say(f"node {there[node]} is lost: what it had in work is computed again")
            for node in now.keys() - there.keys():
                progress.say(f"node {now[node]} has joined")
            there = now
            name, rows = without_room(pools, capacities(), task_cpus), progress.rows
            since = (since or time.monotonic()) if name and rows == rows_before else None
            rows_before = rows
            if name and since and time.monotonic() - since > _NO_ROOM_S:
                lost.append(name)
                _thread.interrupt_main()
        return bool(lost)

    watching = PeriodicTask(check_room, _CHECK_EVERY_S, "tessera-room")
    can_interrupt = threading.current_thread() is threading.main_thread()
    try:
        with watching if can_interrupt else contextlib.nullcontext():
            yield
    except BaseException:
        if lost:
            one = pools[lost[0]]
            raise TesseraError(
                f"compute.pools.{lost[0]}: the nodes that are left have no room for an actor of {one.num_cpus:g} CPUs "
                f"and {one.num_gpus:g} GPUs next to the other pools: bring one back, then run again to continue"
            ) from None
        raise


def release_actors(error: BaseException | None) -> None:
    """Releases the actors of a run that broke off, and their CPUs: tracebacks of its errors refer to them."""
    todo, seen = [error], set[int]()
    while todo:
        one = todo.pop()
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            todo += [one.__cause__, one.__context__, getattr(one, "cause", None)]
    gc.collect()


def _is_refused(error: BaseException | None) -> bool:
    """Returns whether the cluster wants another token. Ray says so only in the text of an error's cause."""
    while error is not None:
        if "AuthenticationError" in f"{type(error).__name__} {error}":
            return True
        error = error.__cause__ or error.__context__
    return False


def _no_answer(address: str, where: str, error: Exception) -> ConfigError:
    if _is_refused(error):
        found = "another token" if any(os.environ.get(name) for name in TOKEN_VARIABLES) else "none"
        return ConfigError(
            where,
            f"the Ray cluster at {address!r} asks for its token, and this process has {found}",
            "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, as on its head",
        )
    return ConfigError(
        where, f"no Ray cluster answers at {address!r} ({describe(error)})", "start one there, or leave it out"
    )
