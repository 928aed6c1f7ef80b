"""Config errors are one line: the path in the YAML, what was found, what is allowed."""

from __future__ import annotations

import copy
from typing import Any

GOOD: dict[str, Any] = {
    "source": {"kind": "files", "path": "corpus"},
    "output": {"path": "out"},
    "features": {
        "picture": {"modality": "image", "tokenizer": {"kind": "patch"}, "encoder": {"kind": "vit", "checkpoint": "m"}}
    },
}


def _with(path: str, value: Any) -> dict[str, Any]:
    raw = copy.deepcopy(GOOD)
    section = raw
    *parents, last = path.split(".")
    for name in parents:
        section = section.setdefault(name, {})
    section[last] = value
    return raw


SECRETS = [
    "s3://AKIAX:hunter2@bucket/x",
    "simplecache::s3://AKIAX:hunter2@bucket/x",
    " zip://a.zip::https://user:hunter2@host/x",
    "https://host/x?q-signature=hunter2",
    "https://host/x?x-oss-signature=hunter2",
    "https://host/x?secret=hunter2",
    "HTTPS://host/x?a=1#%53ig=hunter2",
]
