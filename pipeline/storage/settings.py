"""Settings of storages: endpoints of S3 buckets, and how long a storage that fails is waited for.

They hold for a process and for all processes that it starts, whatever stage or library opens a file there. So they are
in an environment variable, which child processes inherit; workers on other machines call `use_exactly`. Users set the
variable for commands and readers that take no config (docs/cluster.md).
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator

from pipeline.core.errors import ConfigError, NotAllowed
from pipeline.core.section import Section

_VARIABLE = "TESSERA_STORAGE"
_given = os.environ.get(_VARIABLE)
"""The user's settings."""
_SCHEMES = ("s3", "s3a")
_OTHERS = "*"
"""The key for all buckets that have no settings of their own."""


class S3Config(Section):
    """How a bucket is reached. What is not given is found where boto3 finds it: environment, ``~/.aws``, role."""

    endpoint_url: str | None = None
    """The server of an S3-compatible store, such as ``https://minio.example.org:9000``. null: ``AWS_ENDPOINT_URL``, or
    AWS."""
    region: str | None = Field(default=None, min_length=1)
    """The region of the bucket. null: ``AWS_DEFAULT_REGION`` or the profile's."""
    addressing_style: Literal["auto", "path", "virtual"] = "auto"
    """``path``: ``https://host/bucket/key``. ``virtual``: ``https://bucket.host/key``."""
    anonymous: bool = False
    """True: requests are not signed, as public buckets allow."""
    profile: str | None = Field(default=None, min_length=1)
    """Name of a profile in ``~/.aws/config`` and ``~/.aws/credentials`` of each node."""

    @field_validator("endpoint_url")
    @classmethod
    def _is_server(cls, url: str | None) -> str | None:
        if url is not None:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname or "@" in url or parts.query:
                raise NotAllowed("no address of a server", "http://HOST or https://HOST, with a port if need be")
        return url

    def options(self) -> dict[str, Any]:
        """Returns the arguments of `s3fs.S3FileSystem`."""
        found: dict[str, Any] = {"endpoint_url": self.endpoint_url, "profile": self.profile}
        found = {name: value for name, value in found.items() if value is not None}
        if self.region is not None:
            found["client_kwargs"] = {"region_name": self.region}
        if self.addressing_style != "auto":
            found["config_kwargs"] = {"s3": {"addressing_style": self.addressing_style}}
        if self.anonymous:
            found["anon"] = True
        return found


class StorageConfig(Section):
    """How the storages of corpus, checkpoints and output are reached. No part of any identity."""

    max_wait_s: float = Field(default=60.0, ge=0, allow_inf_nan=False)
    """Longest time for which a failing request is tried again, in seconds."""
    s3: dict[str, S3Config] = Field(default_factory=dict)
    """Settings of S3 buckets by name; ``*``: of all others."""

    @field_validator("s3")
    @classmethod
    def _are_buckets(cls, s3: dict[str, S3Config]) -> dict[str, S3Config]:
        for name in s3:
            if not name or "/" in name or ":" in name:
                raise NotAllowed(f"found {name!r}", "the name of a bucket alone, such as my-bucket, or *")
        return s3


DEFAULT = StorageConfig()


def use(settings: StorageConfig) -> None:
    """Lets this process, and all that it starts, reach storages as ``settings`` say; by default as the user's variable
    says."""
    text = _given if settings == DEFAULT else settings.model_dump_json()
    if text is None:
        os.environ.pop(_VARIABLE, None)
    else:
        os.environ[_VARIABLE] = text


def use_exactly(settings: StorageConfig) -> None:
    """Lets this process, and all that it starts, reach storages exactly as ``settings`` say: those of a run's driver,
    from `current`."""
    os.environ[_VARIABLE] = settings.model_dump_json()


def current() -> StorageConfig:
    """Returns the settings of this process. Raises ``ConfigError`` if the user's variable does not hold any."""
    return _parsed(os.environ.get(_VARIABLE, ""))


@lru_cache(maxsize=8)
def _parsed(text: str) -> StorageConfig:
    try:
        return StorageConfig.model_validate_json(text) if text else DEFAULT
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        found = ": ".join([*[".".join(map(str, first["loc"]))] * bool(first["loc"]), first["msg"]])
        raise ConfigError(_VARIABLE, found, "the section `storage` of a config, as JSON") from None


def options(url: str) -> dict[str, Any]:
    """Returns the arguments of the file system of ``url``; {} if it has no settings."""
    scheme, _, rest = url.partition("://")
    if scheme not in _SCHEMES:
        return {}
    buckets = current().s3
    found = buckets.get(rest.partition("/")[0]) or buckets.get(_OTHERS)
    return {} if found is None else found.options()
