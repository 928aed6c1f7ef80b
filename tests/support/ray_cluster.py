"""A real Ray cluster on this machine: a head without CPUs, and nodes that a test adds, each a `ray start` process."""

from __future__ import annotations

import os
import secrets
import shutil
import site
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import psutil

_START_S = 60.0
_OWN_DEVICES = (
    "mkdir -p {folder}/dev && mount -t tmpfs tmpfs {folder}/dev && mkdir {folder}/dev/shm && ln -s /proc/self/fd "
    "{folder}/dev/fd && for one in null zero full random urandom; do touch {folder}/dev/$one && "
    "mount --bind /dev/$one {folder}/dev/$one; done && mount --bind /dev/shm {folder}/dev/shm && "
    "mount --rbind {folder}/dev /dev"
)
"""Commands that give a process a folder ``/dev`` of its own."""


class RayCluster:
    """A context manager.

    Args:
        folder: a folder for what the cluster needs; not for its sockets, whose paths must be short.
        python: the interpreter of the head, and of jobs' programs.
        variables: further variables of all nodes.
        dashboard: the head has a dashboard, which takes jobs.
    """

    def __init__(
        self,
        folder: Path,
        python: str = sys.executable,
        variables: Mapping[str, str] | None = None,
        dashboard: bool = False,
    ) -> None:
        self.folder, self.python, self.has_dashboard = folder, python, dashboard
        self.places: list[str] = []
        """The temporary folders of the nodes, with Ray's logs. Short: they hold sockets."""
        self.address, self.dashboard = f"127.0.0.1:{_free_port()}", f"127.0.0.1:{_free_port()}"
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "PYTHONPATH"))}
        path = f"{Path(python).parent}{os.pathsep}{kept.get('PATH', '')}"
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.environment = {**kept, **token, "PATH": path, **(variables or {})}
        self.nodes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        head = ["--head", f"--port={self.address.partition(':')[2]}", "--num-cpus=0"]
        if self.has_dashboard:
            head += ["--include-dashboard=true", f"--dashboard-port={self.dashboard.partition(':')[2]}"]
            head += [f"--dashboard-agent-listen-port={_free_port()}"]  # takes jobs; the default is one port a machine
        else:
            head += ["--include-dashboard=false"]
        self._start(head, self.python)
        return self

    def __exit__(self, *error: object) -> None:
        for node in reversed(self.nodes):
            self.stop(node)
        for place in self.places:
            shutil.rmtree(place, ignore_errors=True)

    def add(
        self,
        cpus: int = 1,
        gpus: int = 0,
        python: str | None = None,
        hidden: Sequence[Path] = (),
        device: bool = False,
        **variables: str,
    ) -> subprocess.Popen[bytes]:
        """Starts a node.

        Args:
            python: the interpreter of its workers. None: that of the head.
            hidden: folders that are empty for it, as on another machine.
            device: it has the device file of a GPU.
            variables: further variables of its environment.
        """
        options = [f"--address={self.address}", f"--num-cpus={cpus}", f"--num-gpus={gpus}"]
        return self._start(options, python or self.python, hidden, variables, device)

    def extract(self, config: Path, *more: str, **variables: str | None) -> subprocess.Popen[str]:
        """Starts `tessera extract` on the cluster. Ray lets workers import from the folder of the driver's program, and
        from its working directory: neither is the project's.

        Args:
            more: further arguments.
            variables: other variables of the environment; None: unset.
        """
        return self.tessera("extract", str(config), "--engine", "ray", *more, RAY_ADDRESS=self.address, **variables)

    def tessera(self, *arguments: str, **variables: str | None) -> subprocess.Popen[str]:
        """Starts the `tessera` command of this environment, with the token of the cluster.

        Args:
            variables: other variables of the environment; None: unset.
        """
        command = [str(Path(sys.executable).with_name("tessera")), *arguments]
        asked = {**self.environment, "COLUMNS": "300", **variables}
        environment = {name: value for name, value in asked.items() if value is not None}
        return subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def stop(self, node: subprocess.Popen[bytes]) -> None:
        """Ends a node and all of its processes."""
        processes = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
        for process in processes:
            if process.is_running():
                process.kill()
        psutil.wait_procs(processes, timeout=10)
        node.wait()
        if node in self.nodes:
            self.nodes.remove(node)

    def _start(
        self,
        options: list[str],
        python: str,
        hidden: Sequence[Path] = (),
        variables: Mapping[str, str] | None = None,
        device: bool = False,
    ) -> subprocess.Popen[bytes]:
        self.places.append(tempfile.mkdtemp(prefix="t-"))  # its own, as on a machine of its own
        options = ["--block", "--disable-usage-stats", f"--temp-dir={self.places[-1]}", *options]
        # Ray's own port for it may be in use by another node; without it the head takes no jobs
        options.append(f"--dashboard-agent-listen-port={_free_port()}")
        command = [python, "-m", "ray.scripts.scripts", "start", *options]
        if hidden or device:
            mounts = "".join(f"mount -t tmpfs tmpfs '{one}' && " for one in hidden)
            if device:
                mounts += f"{_OWN_DEVICES.format(folder=self.places[-1])} && touch /dev/nvidia0 && "
            command = ["unshare", "--mount", "sh", "-c", f'{mounts} exec "$@"', "sh", *command]
        log = self.folder / f"node-{len(self.nodes)}-{time.monotonic_ns()}.log"
        with log.open("wb") as output:
            node = subprocess.Popen(
                command, cwd=self.folder, env={**self.environment, **(variables or {})}, stdout=output, stderr=output
            )
        self.nodes.append(node)
        deadline = time.monotonic() + _START_S
        while "Ray runtime started." not in log.read_text(errors="replace"):
            assert node.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.1)
        return node


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def python_without_tessera(folder: Path) -> str:
    """Makes an environment with all packages of this one, but not Tessera. Returns its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = folder / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    # a path in a .pth file is added, but the .pth files in it, such as Tessera's, are not read
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()))
    return str(folder / "bin" / "python")


def can_hide_folders() -> bool:
    """Whether this machine lets a node have a file system of its own."""
    return os.geteuid() == 0 and not subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode
