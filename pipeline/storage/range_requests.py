"""Requests for ranges of a file on a remote storage. They are not retried here."""

from __future__ import annotations

import re
import sys
from typing import Any, NamedTuple

from fsspec.asyn import sync

from pipeline.core.errors import SampleError
from pipeline.storage.retry import range_not_satisfiable

_MOST_UNSIZED_BYTES = 1 << 30
"""Most bytes of a file whose size is not told."""
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)\Z")


class FirstRange(NamedTuple):
    """The first bytes of a file.

    Args:
        data: the bytes; fewer than were asked for at the end of the file, or if the answer is incomplete.
        size: the size of the file in bytes.
        version: names its content, for `request_range`; None if the storage has no such name.
    """

    data: bytes
    size: int
    version: str | None


def request_first(fs: Any, path: str, count: int) -> FirstRange:
    """Returns the first ``count`` bytes, or all bytes if the storage does not tell the size.

    Raises:
        SampleError: ``limit``, a file without a size is too large.
        Exception: what the file system raises.
    """
    if _is_s3(fs):
        try:
            data, headers = _get_object(fs, path, 0, count, None)
        except Exception as error:
            if range_not_satisfiable(error):  # an empty file has no first byte
                return FirstRange(b"", 0, None)
            raise
        found = _CONTENT_RANGE.match(headers.get("ContentRange") or "")
        size = int(found[3]) if found else int(headers["ContentLength"])
        return FirstRange(data, size, headers.get("ETag"))
    told = fs.size(path)
    if told is None:  # such as an answer that is compressed on its way
        data = _whole(fs, path)
        return FirstRange(data, len(data), None)
    return FirstRange(request_range(fs, path, 0, min(count, int(told)), None), int(told), None)


def request_range(fs: Any, path: str, start: int, stop: int, version: str | None) -> bytes:
    """Returns the bytes from ``start`` to ``stop``, or fewer if the answer is incomplete.

    Args:
        version: of the first answer. Another content is an error, with the status 412.
    """
    if start >= stop:
        return b""
    if _is_s3(fs):
        data, headers = _get_object(fs, path, start, stop, version)
        is_whole = not headers.get("ContentRange")
    else:
        data = fs.cat_file(path, start=start, end=stop)
        is_whole = len(data) > stop - start
    return data[start:stop] if is_whole else data


def _whole(fs: Any, path: str) -> bytes:
    with fs.open(path, "rb") as file:
        data = bytes(file.read(_MOST_UNSIZED_BYTES + 1))
    if len(data) > _MOST_UNSIZED_BYTES:
        message = f"more than {_MOST_UNSIZED_BYTES} bytes, of a size that its storage does not tell"
        raise SampleError("limit", message)
    return data


def _is_s3(fs: Any) -> bool:
    s3fs = sys.modules.get("s3fs")
    return s3fs is not None and isinstance(fs, s3fs.S3FileSystem)


def _get_object(fs: Any, path: str, start: int, stop: int, version: str | None) -> tuple[bytes, dict[str, Any]]:
    """Returns the body and the headers of a GetObject request.

    ``fs.cat_file`` drops the headers, which tell the size; a request for the size would be as slow as this one.
    """
    bucket, key, version_id = fs.split_path(path)
    options = {"VersionId": version_id} if version_id else {}
    if version is not None:
        options["IfMatch"] = version

    async def get() -> tuple[bytes, dict[str, Any]]:
        answer = await fs._call_s3("get_object", Bucket=bucket, Key=key, Range=f"bytes={start}-{stop - 1}", **options)
        async with answer["Body"] as body:
            return await body.read(), answer

    return sync(fs.loop, get)  # type: ignore[no-any-return]
