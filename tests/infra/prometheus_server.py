"""A real Prometheus on loopback, its queries, and servers that it scrapes."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import ROOT
from tests.support.exposition import read

FOLDER = ROOT / "infra" / "prometheus"
START_S = 60.0
_DURATION = re.compile(r"\b(\d+)(ms|[smhdw])\b")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def need(*programs: str) -> None:
    """Leaves the test out if a program is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian package prometheus)")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def scaled(rules: str, factor: float) -> dict[str, Any]:
    """Returns rules whose spans of time are ``factor`` times as long, but at least a second: ``[15m]``, ``for``."""

    def scale(found: re.Match[str]) -> str:
        return f"{max(1, round(int(found[1]) * _SECONDS[found[2]] * factor))}s"

    plain: dict[str, Any] = yaml.safe_load(rules)
    for group in plain["groups"]:
        group["interval"] = "1s"
        for rule in group["rules"]:
            rule["expr"] = re.sub(r"\[[^]]*\]|offset \w+", lambda one: _DURATION.sub(scale, one[0]), rule["expr"])
            if "for" in rule:
                rule["for"] = _DURATION.sub(scale, rule["for"])
    return plain


class Prometheus:
    """A context manager.

    Args:
        folder: for its config and data.
        jobs: scrape job -> its targets, as host and port. Each has the relabelings of the job of this name in
            infra/prometheus/prometheus.yml.
        rules: its rules.
        every: seconds between two scrapes.
    """

    def __init__(self, folder: Path, jobs: dict[str, list[str]], rules: dict[str, Any], every: str = "500ms") -> None:
        self.folder, self.url = folder, f"127.0.0.1:{free_port()}"
        example = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
        given = {one["job_name"]: one for one in example["scrape_configs"]}
        scraped = []
        for name, targets in jobs.items():
            job = {key: value for key, value in given[name].items() if not key.endswith("_sd_configs")}
            scraped.append({**job, "static_configs": [{"targets": targets}]})
        config = {
            "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": scraped,
        }
        (folder / "rules.yml").write_text(yaml.safe_dump(rules))
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))

    def __enter__(self) -> Prometheus:
        self.log = (self.folder / "log").open("wb")
        options = [
            f"--config.file={self.folder}/prometheus.yml",
            f"--storage.tsdb.path={self.folder}/data",
            f"--web.listen-address={self.url}",
        ]
        self.process = subprocess.Popen(["prometheus", *options], stdout=self.log, stderr=self.log, cwd=self.folder)
        try:
            wait_until(self._is_ready, START_S)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, (self.folder / "log").read_text()
        try:
            return bool(read(f"http://{self.url}/-/ready"))
        except OSError:
            return False

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Returns the series of an expression, with their labels (``metric``) and last ``value``."""
        answer = read(f"http://{self.url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
        found: list[dict[str, Any]] = json.loads(answer)["data"]["result"]
        return found

    def value(self, expression: str) -> float | None:
        """Returns the value of an expression of one series; None if there is none."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else None

    def firing(self) -> dict[str, dict[str, Any]]:
        """Returns the alerts that fire, by name: labels and annotations."""
        alerts = json.loads(read(f"http://{self.url}/api/v1/alerts"))["data"]["alerts"]
        return {one["labels"]["alertname"]: one for one in alerts if one["state"] == "firing"}

    def rules_with_errors(self) -> list[str]:
        """Returns the rules whose last evaluation failed."""
        groups = json.loads(read(f"http://{self.url}/api/v1/rules"))["data"]["groups"]
        return [
            f"{one['name']}: {one['lastError']}" for group in groups for one in group["rules"] if one.get("lastError")
        ]


def wait_until(check: Callable[[], Any], longest_s: float, every_s: float = 0.2) -> Any:
    """Returns the first true value of ``check``. Fails after ``longest_s``."""
    deadline = time.monotonic() + longest_s
    while not (found := check()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(every_s)
    return found


@contextmanager
def exposed(text: Callable[[], str]) -> Iterator[str]:
    """Serves what ``text`` returns, as node_exporter serves text files. Supplies host and port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = text().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
