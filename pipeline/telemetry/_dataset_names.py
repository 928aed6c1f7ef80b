"""Names of datasets as OpenLineage composes them. Source: https://openlineage.io/docs/spec/naming"""

from __future__ import annotations

import os
import re

from pipeline.core.errors import one_line
from pipeline.core.redaction import without_secrets_of_url

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#]*)([^?#]*)", re.IGNORECASE)
_CONTAINER_SCHEMES = ("abfs", "abfss", "wasb", "wasbs")
"""Schemes in which the part before ``@`` is a container, not a user."""


def dataset_name(url: str) -> tuple[str, str]:
    """Returns the namespace and the name of a dataset, as the specification of OpenLineage composes them.

    ``s3://bucket/a/b`` is ``(s3://bucket, a/b)`` and ``/data/a`` is ``(file, /data/a)``. Users, passwords, parameters
    and signatures are left out.
    """
    cleaned = without_secrets_of_url(url).partition("?")[0].partition("#")[0]
    match = _URL.fullmatch(cleaned)
    if match is None:
        return "file", one_line(url if "::" in url else os.path.abspath(url))
    scheme, authority, path = match[1].lower(), match[2], match[3]
    if scheme in ("file", "local"):
        return "file", one_line(path)
    if scheme not in _CONTAINER_SCHEMES:
        authority = authority.rpartition("@")[2]
    return one_line(f"{scheme}://{authority}"), one_line(path.strip("/")) or "/"
