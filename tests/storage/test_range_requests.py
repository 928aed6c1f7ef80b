"""What remote files are asked for: one request for a small one, ranges of a large one, each with the size if it can."""

from __future__ import annotations

import io
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipeline import storage
from pipeline.core.errors import SampleError
from pipeline.storage import range_requests, ranges
from pipeline.storage.blob import Blob
from tests.storage.test_blob import S3
from tests.storage.test_files import _by_ranges
from tests.support.faulty_proxy import FaultyProxy


@pytest.fixture
def data() -> bytes:
    return random.Random(0).randbytes(100_000)


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


class Handler(BaseHTTPRequestHandler):
    """``/sized`` answers with all bytes, whatever range is asked for; ``/unsized`` does not tell how many there are."""

    data = b""
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.send_response(200)
        if self.path == "/sized":
            self.send_header("Content-Length", str(len(self.data)))
        else:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        if self.path == "/sized":
            self.wfile.write(self.data)
        else:
            self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(self.data), self.data))

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.mark.parametrize("name", ["sized", "unsized"])
def test_an_http_server_that_knows_no_ranges(data: bytes, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(ranges, "_HEAD_BYTES", 1000)
    handler = type("", (Handler,), {"data": data})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{name}"
        blob = Blob(url)
        assert (blob.read(10), blob.size(), blob.read()) == (data[:10], len(data), data)
        with blob.open() as file:
            file.seek(70_000)
            assert file.read(10) == data[70_000:70_010]
        if name == "unsized":
            monkeypatch.setattr(range_requests, "_MOST_UNSIZED_BYTES", 99_999)
            with pytest.raises(SampleError, match=r"limit: more than 99999 bytes, of a size that its storage does not"):
                Blob(url).read(10)
        server.shutdown()
