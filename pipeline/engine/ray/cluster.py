"""The Ray cluster that a run computes on: joined or started, the room on its nodes, and a run that has none left."""

from __future__ import annotations

import _thread
import atexit
import contextlib
import gc
import logging
import os
import re
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator

import ray
from ray.data import DataContext

from pipeline.config.models import ComputeConfig
from pipeline.core import private_folder
from pipeline.core.errors import ConfigError, TesseraError, describe
from pipeline.engine.progress import Progress
from pipeline.engine.ray.pools import Node, PoolSize, without_room

_ANSWER_S = 10.0
"""A cluster's head has so long to accept a connection."""
_TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE")
_LOOK_S, _ROOM_S = 5.0, 300.0
_SOCKET_CHARACTERS = len("/r/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.1")


def check(compute: ComputeConfig) -> None:
    """Raises ``ConfigError`` if nothing listens at the cluster's address, which Ray would wait for silently."""
    address, where = compute.cluster()
    found = re.fullmatch(r"(?:ray://)?([^/:]+):(\d+)", address or "")
    if found is not None and not ray.is_initialized():
        try:
            socket.create_connection((found[1], int(found[2])), timeout=_ANSWER_S).close()
        except OSError as error:
            raise _no_answer(str(address), where, error) from error


def start(compute: ComputeConfig) -> None:
    """Joins the cluster that the config or ``RAY_ADDRESS`` names, or starts one here, unless this process has one.

    Sets Ray Data's options in any case.

    Raises:
        ConfigError: the cluster does not answer.
        TesseraError: Ray does not start here, as on a machine that is too busy for it.
    """
    if not ray.is_initialized():
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        # Ray ends a worker that has had no task for a second; the next task's imports Ray Data anew, 4 s of a core
        os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "3600000")
        address, where = compute.cluster()
        cores = compute.num_cpus or max(2, os.cpu_count() or 1)
        # "local": without it Ray joins a cluster that `ray start` left on this machine
        local = {"address": "local", "num_cpus": cores, "include_dashboard": False}
        on_term = signal.getsignal(signal.SIGTERM)
        try:
            if not address:
                _make_token()
            options = {"address": address} if address else {**local, "_temp_dir": _session_place()}
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        except Exception as error:
            if address is not None:
                raise _no_answer(address, where, error) from error
            if isinstance(error, TypeError | ValueError):  # a defect of ours: options that this Ray does not take
                raise
            told = f"Ray does not start on this machine ({describe(error)})"
            raise TesseraError(f"{told}: mend that, or run again when the machine is less busy") from error
        finally:
            if threading.current_thread() is threading.main_thread():  # Ray's handler exits with the signal's number
                signal.signal(signal.SIGTERM, on_term)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # one block may hold many rows that hang, each for its whole time, or take a slow model half an hour
    context.execution_no_progress_timeout_s = -1
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _session_place() -> str:
    """Where a Ray of this process has its sockets and logs: below a folder that nobody else may enter, since Ray lets
    everybody write to its own. It goes with this process.

    Raises:
        OSError: it cannot be made.
    """
    folder = private_folder.make("ray", os.environ.get("RAY_TMPDIR"), longest=_SOCKET_CHARACTERS)
    atexit.register(_end_session, folder, os.getpid())
    return os.path.join(folder, "r")


def _make_token() -> None:
    """Makes the token of a Ray of this process, unless the environment names one: whoever has it can run code there.
    Ray's own would be in the home folder, for all to read that may enter it. It goes with this process.

    Raises:
        OSError: it cannot be written.
    """
    if any(name in os.environ for name in _TOKEN_VARIABLES):
        return
    folder = private_folder.make("token")
    path = os.path.join(folder, "auth_token")
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="ascii") as file:
        file.write(secrets.token_hex(32))
    os.environ["RAY_AUTH_TOKEN_PATH"] = path
    atexit.register(_remove_token, folder, os.getpid())


def _remove_token(folder: str, owner: int) -> None:
    if os.getpid() == owner:
        private_folder.remove(folder)


def _end_session(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # a fork ends without Ray
        ray.shutdown()
        private_folder.remove(folder)


@contextlib.contextmanager
def capacity_watchdog(pools: dict[str, PoolSize], on_gpu: bool, progress: Progress) -> Iterator[None]:
    """A pool that found no room for an actor any more would be waited for, for ever.

    Raises:
        TesseraError: for ``_ROOM_S`` nothing advanced, and the nodes had no room for one actor of each pool.
    """
    lost: list[str] = []
    over = threading.Event()

    def watch() -> None:
        since: float | None = None
        before = 0
        while not over.wait(_LOOK_S):
            with contextlib.suppress(Exception):  # a cluster that does not answer is told by what is waited for
                name, rows = without_room(pools, nodes(), on_gpu), progress.rows
                since = (since or time.monotonic()) if name and rows == before else None
                before = rows
                if name and since and time.monotonic() - since > _ROOM_S:
                    lost.append(name)
                    _thread.interrupt_main()
                    return

    watching = threading.Thread(target=watch, daemon=True, name="tessera-room")
    if threading.current_thread() is threading.main_thread():
        watching.start()
    try:
        yield
    except BaseException:
        if lost:
            one = pools[lost[0]]
            raise TesseraError(
                f"compute.pools.{lost[0]}: the nodes that are left have no room for an actor of {one.num_cpus:g} CPUs "
                f"and {one.num_gpus:g} GPUs beside the other pools: bring one back, then run again to continue"
            ) from None
        raise
    finally:
        over.set()


def release_actors(error: BaseException | None) -> None:
    """Ends Ray's actors of a run that broke off: the tracebacks of its errors hold them, and their CPUs."""
    todo, seen = [error], set[int]()
    while todo:
        one = todo.pop()
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            todo += [one.__cause__, one.__context__, getattr(one, "cause", None)]
    gc.collect()


def devices() -> dict[str, float] | None:
    """Nodes, CPUs and GPUs of the cluster that this process has joined; None if it has joined none."""
    if not ray.is_initialized():
        return None
    found = ray.cluster_resources()
    nodes = sum(bool(node["Alive"]) for node in ray.nodes())
    return {"nodes": nodes, "cpus": float(found.get("CPU", 0)), "gpus": float(found.get("GPU", 0))}


def nodes() -> list[Node]:
    """Returns the CPUs and GPUs of each living node."""
    return [
        Node(float(node["Resources"]["CPU"]), float(node["Resources"].get("GPU", 0)))
        for node in ray.nodes()
        if node["Alive"] and "CPU" in node["Resources"]
    ]


def _no_answer(address: str, where: str, error: Exception) -> ConfigError:
    return ConfigError(
        where, f"no Ray cluster answers at {address!r} ({describe(error)})", "start one there, or leave it out"
    )
