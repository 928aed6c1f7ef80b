"""The HTTP server of the metrics' port."""

from __future__ import annotations

import socket
import threading
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_END_S = 0.05
"""How often the server looks whether it is to end: a short run waits for that."""
_SILENCE_S = 10.0
"""Seconds until a client that sends nothing is disconnected."""


class _Handler(WSGIRequestHandler):
    timeout = _SILENCE_S

    def log_message(self, *_: Any) -> None:
        """Logs nothing."""


class MetricsServer:
    """Answers each request with the metrics of a registry, in a thread of its own.

    Args:
        host: the address on which it listens.
        port: its port.

    Raises:
        OSError: it cannot listen there.
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        from prometheus_client import make_wsgi_app

        family, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]

        class Server(ThreadingMixIn, WSGIServer):
            daemon_threads, request_queue_size = True, 64
            address_family = family

        self._server = make_server(host, port, make_wsgi_app(registry), Server, _Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_END_S,), daemon=True, name="tessera-metrics-port"
        )
        self._thread.start()

    def close(self) -> None:
        """Closes the port."""
        self._server.shutdown()
        self._server.server_close()
