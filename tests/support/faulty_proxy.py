"""An HTTP proxy in front of a true server on this machine; the next requests of a method go wrong as a test plans."""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

_XML = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
_CODES = {
    "500": "InternalError",
    "502": "BadGateway",
    "503": "SlowDown",
    "429": "TooManyRequests",
    "403": "AccessDenied",
}
_SILENCE_S = 2.0


class FaultyProxy:
    """A context manager. Faults: a status (``500``, ``503``, ``400:ExpiredToken``...); ``reset`` before an answer;
    ``cut``: half the body, then the connection ends; ``short``: half the body, and a length that fits it;
    ``empty``: none of it; ``silent``: no answer; ``lost``: the server did it, and its answer is reset; ``weak``: a
    weak ETag, as proxies that compress make; ``untold``: no Content-Range."""

    def __init__(self, server: str) -> None:
        self.server = urlsplit(server)
        self.faults: dict[str, list[Any]] = {}
        self.requests: list[tuple[str, str, int]] = []
        """Method, path and bytes of the answer, for each request."""
        self.lock = threading.Lock()
        self._dice, self._share, self._faults = random.Random(0), 0.0, tuple[str, ...]()
        self.met = 0
        """Requests that met a fault of `plan_at_random`."""
        self._frozen_until = 0.0
        self._holding = ""
        self._released = threading.Event()
        self.held = 0
        """Requests that wait until `release`."""

    def hold(self, name: str) -> None:
        """Lets each GET of a file of that name wait until `release`."""
        self._holding = name

    def release(self) -> None:
        self._dice, self._share, self._faults = random.Random(0), 0.0, tuple[str, ...]()
        self.met = 0
        """Requests that met a fault of `plan_at_random`."""
        self._frozen_until = 0.0
        self._holding = ""
        self._released.set()

    def wait_if_held(self, method: str, path: str) -> None:
        time.sleep(max(0.0, self._frozen_until - time.monotonic()))
        if method == "GET" and self._holding and path.partition("?")[0].endswith(f"/{self._holding}"):
            self.held += 1
            self._released.wait()

    def plan(self, method: str, fault: str, times: int) -> None:
        """The next ``times`` requests of ``method`` meet ``fault``."""
        self.faults[method] = [fault, times]

    def plan_at_random(self, share: float, faults: Sequence[str], seed: int = 0) -> None:
        """Each request meets one of ``faults`` with a probability of ``share``."""
        self._dice, self._share, self._faults = random.Random(seed), share, tuple(faults)

    def freeze(self, seconds: float) -> None:
        """Lets all requests that come within the next seconds wait until these are over."""
        self._frozen_until = time.monotonic() + seconds

    def left(self, method: str) -> int:
        """How many of the planned requests are still to come."""
        return int(self.faults[method][1])

    def next(self, method: str) -> str | None:
        with self.lock:
            fault = self.faults.get(method)
            if self._share and self._dice.random() < self._share:
                self.met += 1
                return self._dice.choice(self._faults)
            if fault is None or fault[1] == 0:
                return None
            fault[1] -= 1
            return str(fault[0])

    def __enter__(self) -> Self:
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.http.shutdown()
        self.http.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: FaultyProxy

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.owner.wait_if_held(self.command, self.path)
        fault = self.owner.next(self.command)
        if fault == "reset":
            return self._reset()
        if fault == "silent":
            time.sleep(_SILENCE_S)
            return self._reset()
        status, _, code = (fault or "").partition(":")
        if status in _CODES or code:
            body = _XML.format(code=code or _CODES[status]).encode()
            return self._answer(int(status), {"Content-Type": "application/xml"}, body)
        server = http.client.HTTPConnection(self.owner.server.hostname or "", self.owner.server.port)
        server.request(self.command, self.path, body, dict(self.headers))
        response = server.getresponse()
        data, headers = response.read(), dict(response.getheaders())
        server.close()
        if fault == "lost":
            return self._reset()
        if fault == "weak":
            headers = {name: f"W/{value}" if name.lower() == "etag" else value for name, value in headers.items()}
        if fault == "untold":
            headers = {name: value for name, value in headers.items() if name.lower() != "content-range"}
        if fault in ("short", "empty"):
            data = data[: len(data) // 2] if fault == "short" else b""
        self._answer(response.status, headers, data, cut=fault == "cut")
        return None

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _any

    def _answer(self, status: int, headers: dict[str, str], data: bytes, cut: bool = False) -> None:
        with self.owner.lock:
            self.owner.requests.append((self.command, self.path, 0 if self.command == "HEAD" else len(data)))
        self.send_response_only(status)
        length = headers.get("Content-Length") if self.command == "HEAD" else None
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self._reset()

    def _reset(self) -> None:
        """End the connection at once, without a farewell."""
        self.wfile.flush()
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def handle(self) -> None:
        try:
            super().handle()
        except (OSError, ValueError):
            return  # the other side is gone, or we closed it

    def finish(self) -> None:
        try:
            super().finish()
        except (OSError, ValueError):
            return
