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
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import psutil

_START_S = 60.0


class RayCluster:
    """A context manager.

    Args:
        folder: a folder for what the cluster needs; not for its sockets, whose paths must be short.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.place = tempfile.mkdtemp(prefix="t-")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "PYTHONPATH"))}
        self.environment = {**kept, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.nodes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        head = ["--head", f"--port={self.address.partition(':')[2]}", "--num-cpus=0", "--include-dashboard=false"]
        self._start([*head, f"--temp-dir={self.place}"])
        return self

    def __exit__(self, *error: object) -> None:
        for node in reversed(self.nodes):
            self.stop(node)
        shutil.rmtree(self.place, ignore_errors=True)

    def add(
        self, cpus: int = 1, gpus: int = 0, python: str = sys.executable, hidden: Sequence[Path] = ()
    ) -> subprocess.Popen[bytes]:
        """Starts a node.

        Args:
            python: the interpreter of its workers.
            hidden: folders that are empty for it, as on another machine.
        """
        options = [f"--address={self.address}", f"--num-cpus={cpus}", f"--num-gpus={gpus}"]
        return self._start(options, python, hidden)

    def extract(self, config: Path, *more: str, **variables: str | None) -> subprocess.Popen[str]:
        """Starts `tessera extract` on the cluster. Ray lets workers import from the folder of the driver's program, and
        from its working directory: neither is the project's.

        Args:
            more: further arguments.
            variables: other variables of the environment; None: unset.
        """
        command = [str(Path(sys.executable).with_name("tessera")), "extract", str(config), "--engine", "ray", *more]
        asked = {**self.environment, "RAY_ADDRESS": self.address, "COLUMNS": "300", **variables}
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
        self, options: list[str], python: str = sys.executable, hidden: Sequence[Path] = ()
    ) -> subprocess.Popen[bytes]:
        command = [python, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", *options]
        if hidden:
            mounts = "".join(f"mount -t tmpfs tmpfs '{one}' && " for one in hidden)
            command = ["unshare", "--mount", "sh", "-c", f'{mounts} exec "$@"', "sh", *command]
        log = self.folder / f"node-{len(self.nodes)}-{time.monotonic_ns()}.log"
        with log.open("wb") as output:
            node = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=output, stderr=output)
        self.nodes.append(node)
        deadline = time.monotonic() + _START_S
        while "Ray runtime started." not in log.read_text(errors="replace"):
            assert node.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.1)
        return node


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
