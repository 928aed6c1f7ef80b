"""Identity of a sample: its id, the roles and version tokens of its files, the hash of its source version."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from pipeline import storage
from pipeline.core.errors import SampleError
from pipeline.storage.ranges import source_errors
from pipeline.storage.retry import is_transient, retried

SCHEMES = ("file", "s3", "gs", "abfs", "memory")
"""Schemes of URIs that are allowed by default; plain paths are ``file``. Some other schemes of fsspec run or fetch more
than the URI names."""
_SCHEME = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*)://|(data):)")

LISTING_ROWS = 10_000
"""Maximum number of rows in one table of a listing."""

MISSING, FORBIDDEN = "missing", "forbidden"
"""Tokens of a file that cannot be found, and of one that lies outside of what the source allows."""

_EXTENSIONS = {
    "text": "txt text md markdown rst html htm xhtml xml json jsonl ndjson csv tsv yaml yml tex log srt vtt sbv lrc",
    "image": "jpg jpeg jpe jfif png apng gif webp bmp dib tif tiff avif avifs heic heif ppm pgm pbm pnm pfm jp2 j2k "
    "jpx jpf j2c jpc ico icns tga pcx dds mpo psd sgi rgb xbm xpm qoi exr hdr dng im msp fli flc cur wmf emf",
    "video": "mp4 m4v mkv webm mov avi mpg mpeg mpe m1v m2v mpv ts m2ts mts wmv flv f4v 3gp 3g2 ogv asf vob mxf dv "
    "y4m h264 264 h265 265 hevc ivf divx rm rmvb gifv nut",
    "audio": "wav wave flac ogg oga opus mp3 m4a m4b aac aif aiff aifc wma ac3 eac3 amr au snd caf mka mp2 mpga ape "
    "wv tta dts spx w64 rf64 voc gsm",
}
_ROLES = {extension: role for role, names in _EXTENSIONS.items() for extension in names.split()}


def role_of(name: str) -> str:
    """Returns the role for the extension of ``name``, upper or lower case; ``other`` for an unknown extension."""
    return _ROLES.get(os.path.splitext(name)[1][1:].lower(), "other")


def scheme_of(url: str) -> str | None:
    """Returns the scheme of ``url`` in lower case; None for a plain path."""
    found = _SCHEME.match(url)
    return (found[1] or found[2]).lower() if found else None


def id_of(path: str) -> str:
    """Returns the sample_id of a relative path: the path itself, with percent escapes if it is not UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        escaped = path.replace("%", "%25")
        return re.sub("[\udc80-\udcff]", lambda byte: f"%{ord(byte[0]) - 0xDC00:02X}", escaped)
    return path


def version_of(files: Iterable[tuple[str, str, str]], inline: str | None, passthrough: Mapping[str, Any]) -> str:
    """Returns the source version of a sample: the SHA-256 (hex) over the sorted files, the inline text and passthrough
    values.

    Args:
        files: (role, relative uri, token) of each file.
    """
    values = [sorted(files), inline, sorted(passthrough.items())]
    return hashlib.sha256(_ENCODER.encode(values).encode()).hexdigest()


def _tagged(value: Any) -> Any:
    """Returns a value that JSON does not have, as a string under the name of its type."""
    return {type(value).__name__: value.hex() if isinstance(value, bytes) else str(value)}


_ENCODER = json.JSONEncoder(default=_tagged, separators=(",", ":"))
"""One encoder for all rows: `json.dumps` creates one per call."""


def local_token(status: os.stat_result) -> str:
    """Returns the version token of a local file: its size and modification time."""
    return f"{status.st_size}-{status.st_mtime_ns}"


def stat_token(uri: str) -> str:
    """Returns the version token of one file; ``missing`` if it cannot be read, which the worker reports as a failure.

    Raises:
        Exception: the server cannot be reached, which says nothing about the file.
    """
    fs, path = storage.split(uri)
    try:
        if isinstance(fs, LocalFileSystem):
            return local_token(os.stat(path))
        return storage.remote_version(retried(lambda: fs.info(path)))
    except (OSError, ValueError) as error:  # a name that no file can have
        if is_transient(error):
            raise
        return MISSING


MAX_HASHED_BYTES = 16 << 30
"""Maximum size of a file whose content is hashed. A sparse file of some kilobytes may claim any size."""


def content_token(blob: storage.Blob, token: str) -> str:
    """Returns the version token of a file by its content.

    Args:
        token: its token from the listing.

    Returns:
        The SHA-256 (hex) of the bytes; ``missing`` if it cannot be read; ``forbidden`` if it lies outside of what is
        allowed; ``token`` if it is larger than `MAX_HASHED_BYTES`.

    Raises:
        Exception: the storage cannot be reached. The file must not count as changed then.
    """
    digest = hashlib.sha256()
    try:
        with blob.open() as file, source_errors(blob.uri):
            if blob.size() > MAX_HASHED_BYTES:
                return token
            while piece := file.read(1 << 20):
                digest.update(piece)
    except SampleError as error:
        if error.__cause__ is not None and is_transient(error.__cause__):
            raise error.__cause__ from None
        return FORBIDDEN if error.kind == "forbidden" else MISSING
    return digest.hexdigest()
