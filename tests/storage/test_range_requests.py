"""What remote files are asked for: one request for a small one, ranges of a large one, each with the size if it can."""

from __future__ import annotations

import io
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import s3fs

from pipeline import storage
from pipeline.core.errors import SampleError
from pipeline.storage import range_requests
from pipeline.storage.blob import Blob
from tests.storage.test_blob import S3
from tests.storage.test_files import _by_ranges
from tests.support.faulty_proxy import FaultyProxy


def test_a_small_object_is_one_request(proxied: FaultyProxy) -> None:
    """Its size, its head and its bytes, by whatever way it is opened."""
    data = random.Random(0).randbytes(900_000)
    storage.publish(S3, data)
    storage.publish("s3://corpus/empty", b"")
    proxied.requests.clear()
    blob = Blob(S3)
    assert (blob.read(64), blob.size(), blob.read()) == (data[:64], len(data), data)
    for _ in range(2):
        assert _by_ranges(blob) == data
    assert [(method, sent) for method, _, sent in proxied.requests] == [("GET", len(data))]
    assert blob.cost() == (len(data), 1, 0)
    assert (Blob("s3://corpus/empty").size(), Blob("s3://corpus/empty").read()) == (0, b"")
    with pytest.raises(SampleError, match="missing: no such file"):
        Blob("s3://corpus/none").read()


def test_a_large_object_is_requested_by_ever_larger_ranges(proxied: FaultyProxy) -> None:
    """Not 50 MiB to read 4 KiB of it; and what lies around a place that is sought is small."""
    data = random.Random(0).randbytes(60 << 20)
    storage.publish(S3, data)
    proxied.requests.clear()
    blob = Blob(S3)
    assert blob.read(4096) == data[:4096]
    assert [sent for _, _, sent in proxied.requests] == [1 << 20]
    with blob.open() as file:
        file.seek(-10, io.SEEK_END)
        assert file.read() == data[-10:]
        file.seek(30 << 20)
        assert file.read(100) == data[30 << 20 :][:100]
        assert [sent for _, _, sent in proxied.requests] == [1 << 20, 10, 256 << 10]
        file.seek(0)
        while piece := file.read(1 << 16):
            assert piece == data[file.tell() - len(piece) : file.tell()]
    assert len(proxied.requests) <= 16
    assert sum(sent for _, _, sent in proxied.requests) < 1.1 * len(data)


def test_an_object_that_is_replaced_while_it_is_read_is_an_error(proxied: FaultyProxy) -> None:
    first, second = (random.Random(seed).randbytes(3 << 20) for seed in range(2))
    storage.publish(S3, first)
    with Blob(S3).open() as file:
        assert file.read(100) == first[:100]
        storage.publish(S3, second)
        file.seek(2 << 20)
        with pytest.raises(SampleError, match=r"io: .*the file changed while it was read"):
            file.read(100)


@pytest.mark.parametrize("fault", ["weak", "untold"])
def test_gateways_that_change_headers(proxied: FaultyProxy, fault: str) -> None:
    """A weak ETag names no bytes, so that If-Match would never hold; a part without a total is not the whole."""
    data = random.Random(0).randbytes(3 << 20)
    storage.publish(S3, data)
    proxied.plan("GET", fault, 10**6)
    assert Blob(S3).size() == len(data)
    assert Blob(S3).read() == data


def test_what_the_library_repeats_is_counted(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = random.Random(0).randbytes(1000)
    storage.publish(S3, data)
    with FaultyProxy(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        s3fs.S3FileSystem.clear_instance_cache()
        proxy.plan("GET", "500", 2)
        blob = Blob(S3)
        assert blob.read() == data
        assert blob.cost() == (1000, 3, 2)
        assert len([path for _, path, _ in proxy.requests if path == "/corpus/a"]) == 3
    s3fs.S3FileSystem.clear_instance_cache()


class Handler(BaseHTTPRequestHandler):
    """``/sized`` answers with all bytes, whatever range is asked for; ``/unsized`` in pieces, with pauses, and states
    no length."""

    data = b""
    protocol_version = "HTTP/1.1"
    answers: list[str]

    def do_HEAD(self) -> None:
        self.send_response(200)
        if self.path == "/sized":
            self.send_header("Content-Length", str(len(self.data)))
        else:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def do_GET(self) -> None:
        self.answers.append(self.path)
        self.do_HEAD()
        if self.path == "/sized":
            self.wfile.write(self.data)
            return
        with suppress(ConnectionError):  # fsspec looks for a size in two answers that it does not read
            for start in range(0, len(self.data), 700_000):
                piece = self.data[start : start + 700_000]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.wfile.flush()
                time.sleep(0.05)
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def http() -> Iterator[tuple[str, type[Handler]]]:
    """A server, and its handler with the bytes of its file."""
    handler = type("", (Handler,), {"data": random.Random(0).randbytes(3 << 20), "answers": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", handler
        server.shutdown()


@pytest.mark.parametrize("name", ["sized", "unsized"])
def test_an_http_server_that_knows_no_ranges(
    http: tuple[str, type[Handler]], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A file of unknown size is read whole at once; of another one first its beginning, then all. Nothing is requested
    again, and no file may be larger than a limit."""
    url, handler = f"{http[0]}/{name}", http[1]
    blob, data = Blob(url), handler.data
    assert (blob.read(10), blob.size(), blob.read()) == (data[:10], len(data), data)
    with blob.open() as file:
        file.seek(2_900_000)
        assert file.read(10) == data[2_900_000:2_900_010]
    # fsspec asks twice for the size of a file of unknown size; a server without ranges refuses the second request
    assert len(handler.answers) == 3
    assert blob.cost().requests == (2 if name == "sized" else 1)
    monkeypatch.setattr(range_requests, "_MOST_WHOLE_BYTES", 2 << 20)
    with pytest.raises(SampleError, match=r"limit: more than 2097152 bytes, on a server that states no size or"):
        Blob(url).read()
    if name == "sized":
        assert Blob(url).read(10) == data[:10]


def test_an_http_file_that_gets_another_size_is_an_error(http: tuple[str, type[Handler]]) -> None:
    blob = Blob(f"{http[0]}/sized")
    assert blob.size() == 3 << 20
    http[1].data = http[1].data[:-1]
    with pytest.raises(SampleError, match=r"io: .*the file changed while it was read"):
        blob.read()
