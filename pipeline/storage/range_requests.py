"""Requests for ranges of a file on a remote storage. They are not repeated here, but libraries may repeat them."""

from __future__ import annotations

import re
import sys
from typing import Any, NamedTuple

from fsspec.asyn import sync

from pipeline.core.errors import SampleError
from pipeline.storage.retry import range_not_satisfiable

_MOST_WHOLE_BYTES = 1 << 30
"""Most bytes of a file that is read whole, since its server states no size, or supports no ranges."""
_PIECE_BYTES = 1 << 20
_CONTENT_RANGE = re.compile(r"bytes \d+-\d+/(\d+)\Z")


class Changed(OSError):
    """The file is not the one whose first bytes were read."""

    def __init__(self) -> None:
        super().__init__("the file changed while it was read")


class Answer(NamedTuple):
    """What a storage answered.

    Args:
        data: the bytes; fewer than were asked for if the answer is incomplete.
        size: size of the file in bytes.
        version: names the content of the file; None if the storage has no such name.
        is_whole: ``data`` is the whole file, since the storage supports no ranges.
        repeats: how often the library has repeated the request.
    """

    data: bytes
    size: int
    version: str | None = None
    is_whole: bool = False
    repeats: int = 0


def request_first(fs: Any, path: str, count: int) -> Answer:
    """Requests the first ``count`` bytes, or all bytes if the size is not known.

    Raises:
        SampleError: ``limit``, a file of unknown size is too large.
        Exception: what the file system raises.
    """
    if _is_s3(fs):
        try:
            return _get_object(fs, path, 0, count, None)
        except Exception as error:
            if range_not_satisfiable(error):  # an empty file has no first byte
                return Answer(b"", 0)
            raise
    size = fs.size(path)
    if size is None:  # such as an answer that is compressed on its way
        data = _read_all(fs, path)
        return Answer(data, len(data), is_whole=True)
    return request_range(fs, path, 0, min(count, int(size)), int(size), None)


def request_range(fs: Any, path: str, start: int, stop: int, size: int, version: str | None) -> Answer:
    """Requests the bytes from ``start`` to ``stop``.

    Args:
        size: of the first answer.
        version: of the first answer.

    Raises:
        Changed: the file has another size or version.
        SampleError: ``limit``, the storage supports no ranges, and the file is too large to be read whole.
        Exception: what the file system raises.
    """
    if start >= stop:
        return Answer(b"", size, version)
    if _is_s3(fs):
        answer = _get_object(fs, path, start, stop, version)
        if answer.size != size or (version is not None and answer.version not in (None, version)):
            raise Changed
        return answer
    if _is_http(fs):
        return _http_range(fs, path, start, stop, size)
    return Answer(fs.cat_file(path, start=start, end=stop), size, version)


def _http_range(fs: Any, path: str, start: int, stop: int, size: int) -> Answer:
    """Requests a range of a file from an HTTP server, which may send all of it.

    ``fs.cat_file`` would hold all that such a server sends.
    """
    with fs.open(path, "rb", block_size=stop - start, cache_type="none", size=size) as file:
        file.seek(start)
        try:
            return Answer(bytes(file.read(stop - start)), size)
        except ValueError:  # the server supports no ranges, and the range does not begin at 0
            pass
    data = _read_all(fs, path)
    if len(data) != size:
        raise Changed
    return Answer(data, size, is_whole=True)


def _read_all(fs: Any, path: str) -> bytes:
    """Returns all bytes of a file in one request. A read may return less than is there."""
    pieces: list[bytes] = []
    count = 0
    with fs.open(path, "rb", **({"block_size": 0} if _is_http(fs) else {})) as file:
        while piece := bytes(file.read(_PIECE_BYTES)):
            pieces.append(piece)
            count += len(piece)
            if count > _MOST_WHOLE_BYTES:
                message = f"more than {_MOST_WHOLE_BYTES} bytes, on a server that states no size or supports no ranges"
                raise SampleError("limit", message)
    return b"".join(pieces)


def _is_s3(fs: Any) -> bool:
    s3fs = sys.modules.get("s3fs")
    return s3fs is not None and isinstance(fs, s3fs.S3FileSystem)


def _is_http(fs: Any) -> bool:
    http = sys.modules.get("fsspec.implementations.http")
    return http is not None and isinstance(fs, http.HTTPFileSystem)


def _get_object(fs: Any, path: str, start: int, stop: int, version: str | None) -> Answer:
    """Makes a GetObject request.

    ``fs.cat_file`` drops the headers, which state the size; a request for the size would be as slow as this one.
    """
    bucket, key, version_id = fs.split_path(path)
    options = {"VersionId": version_id} if version_id else {}
    if version is not None:
        options["IfMatch"] = version

    async def get() -> tuple[bytes, dict[str, Any]]:
        answer = await fs._call_s3("get_object", Bucket=bucket, Key=key, Range=f"bytes={start}-{stop - 1}", **options)
        async with answer["Body"] as body:
            return await body.read(), answer

    data, headers = sync(fs.loop, get)
    about = headers.get("ResponseMetadata", {})
    total = _CONTENT_RANGE.match(headers.get("ContentRange") or "")
    is_whole = total is None and about.get("HTTPStatusCode") == 200
    size = int(total[1] if total else headers["ContentLength"] if is_whole else fs.size(path))
    tag = headers.get("ETag") or None
    if tag is not None and tag.startswith("W/"):  # it names no bytes, and If-Match never holds
        tag = None
    return Answer(data, size, tag, is_whole, int(about.get("RetryAttempts", 0)))
