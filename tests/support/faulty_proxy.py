"""An HTTP proxy in front of a true server on this machine; the next requests of a method go wrong as a test plans."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
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
    """A context manager. Faults: a status (``500``, ``503``...); ``reset`` before an answer; ``cut``: half the body,
    then the connection ends; ``short``: half the body, and a length that fits it; ``empty``: none of it; ``silent``: no
    answer; ``lost``: the server did it, and its answer is reset; ``weak``: a weak ETag, as proxies that compress make;
    ``untold``: no Content-Range."""

    def __init__(self, server: str) -> None:
        self.server = urlsplit(server)
        self.faults: dict[str, list[Any]] = {}
        self.requests: list[tuple[str, str, int]] = []
        """Method, path and bytes of the answer, for each request."""
        self.lock = threading.Lock()

    def plan(self, method: str, fault: str, times: int) -> None:
        """The next ``times`` requests of ``method`` meet ``fault``."""
        self.faults[method] = [fault, times]

    def left(self, method: str) -> int:
        """How many of the planned requests are still to come."""
        return int(self.faults[method][1])

    def next(self, method: str) -> str | None:
        with self.lock:
            fault = self.faults.get(method)
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
        fault = self.owner.next(self.command)
        if fault == "reset":
            return self._reset()
        if fault == "silent":
            time.sleep(_SILENCE_S)
            return self._reset()
        if fault in _CODES:
            return self._answer(
                int(fault), {"Content-Type": "application/xml"}, _XML.format(code=_CODES[fault]).encode()
            )
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
