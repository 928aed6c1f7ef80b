"""Who a sample is: roles by extension, ids, tokens of files, the hash of a version. For every source."""

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
"""Of URIs, unless the config allows others; plain paths are ``file``. Some that fsspec knows would run or fetch more
than they name."""
_SCHEME = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*)://|(data):)")

LISTING_ROWS = 10_000
"""Rows of one table of a listing, at most."""

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
    """The role that the extension of ``name`` hints at, in any case; ``other`` where it says nothing."""
    return _ROLES.get(os.path.splitext(name)[1][1:].lower(), "other")


def scheme_of(url: str) -> str | None:
    """The scheme, in lower case; None for a plain path."""
    found = _SCHEME.match(url)
    return (found[1] or found[2]).lower() if found else None


def id_of(path: str) -> str:
    """The sample_id of a relative path: the path itself. Of names that are not UTF-8, the bytes percent-escaped."""
    try:
        path.encode()
    except UnicodeEncodeError:
        escaped = path.replace("%", "%25")
        return re.sub("[\udc80-\udcff]", lambda byte: f"%{ord(byte[0]) - 0xDC00:02X}", escaped)
    return path


def version_of(files: Iterable[tuple[str, str, str]], inline: str | None, passthrough: Mapping[str, Any]) -> str:
    """sha256 (hex) over the sorted (role, relative uri, token) of all files, the inline text and passthrough values."""
    values = [sorted(files), inline, sorted(passthrough.items())]
    return hashlib.sha256(_ENCODER.encode(values).encode()).hexdigest()


def _plain(value: Any) -> Any:
    return {type(value).__name__: value.hex() if isinstance(value, bytes) else str(value)}


_ENCODER = json.JSONEncoder(default=_plain, separators=(",", ":"))
"""`json.dumps` would make one for each row."""


def local_token(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}"


def remote_token(info: Mapping[str, Any]) -> str:
    """What changes when the file changes, from a file system's own listing: etag or version id before times."""
    for key in ("ETag", "etag", "VersionId", "version_id", "generation", "md5Hash"):
        if info.get(key):
            return str(info[key]).strip('"')
    times = (info.get(key) for key in ("LastModified", "last_modified", "mtime", "modified", "updated", "created"))
    return f"{info.get('size')}-{next((str(time) for time in times if time is not None), '')}"


def stat_token(uri: str) -> str:
    """The token of one file; ``missing`` where it cannot be had, for the worker to tell as a failure.

    Raises what a server that is out of reach raises: that says nothing about the file.
    """
    fs, path = storage.split(uri)
    try:
        if isinstance(fs, LocalFileSystem):
            return local_token(os.stat(path))
        return remote_token(retried(lambda: fs.info(path)))
    except (OSError, ValueError) as error:  # a name that no file can have
        if is_transient(error):
            raise
        return "missing"


MAX_HASHED_BYTES = 16 << 30
"""Of a file, in full: one of some kilobytes may claim any size, of which all but those are a hole."""


def content_token(blob: storage.Blob, token: str) -> str:
    """sha256 (hex) of the file's bytes; ``missing`` where there are none to read, ``forbidden`` where it may not be;
    ``token``, which its listing gave, where there are more than `MAX_HASHED_BYTES`.

    Raises what a storage that is out of reach raises: that says nothing about the file, which must not count as
    changed.
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
        return "forbidden" if error.kind == "forbidden" else "missing"
    return digest.hexdigest()
