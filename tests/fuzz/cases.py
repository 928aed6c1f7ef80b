"""An input as files to write, which is kept as one JSON file and tried again from it."""

from __future__ import annotations

import base64
import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.fuzz.mutation import OUTSIDE


@dataclass
class Case:
    """What is put into the folder of an input, over what its kind has there, and what is done then."""

    files: dict[str, bytes] = field(default_factory=dict)
    """Path below the folder -> content, in which `OUTSIDE` stands for the absolute path of the outside folder."""
    links: dict[str, str] = field(default_factory=dict)
    """Path -> target. What is there is replaced."""
    pipes: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)

    def write(self, folder: Path, outside: Path) -> None:
        for path, content in self.files.items():
            one = folder / path
            one.parent.mkdir(parents=True, exist_ok=True)
            one.write_bytes(content.replace(OUTSIDE.encode(), str(outside).encode()))
        for path in self.removed:
            _remove(folder / path)
        for path, target in self.links.items():
            if _remove(folder / path):
                (folder / path).symlink_to(target.replace(OUTSIDE, str(outside)))
        for path in self.pipes:
            if _remove(folder / path):
                os.mkfifo(folder / path)

    def save(self, path: Path, kind: str, reported: str = "") -> None:
        values = asdict(self)
        values["files"] = {name: base64.b64encode(data).decode() for name, data in self.files.items()}
        path.write_text(json.dumps({"kind": kind, "reported": reported, **values}, indent=1))

    @classmethod
    def load(cls, path: Path) -> tuple[str, Case]:
        """(kind, the case)"""
        values = json.loads(path.read_text())
        kind = values.pop("kind")
        values.pop("reported")
        files = {name: base64.b64decode(data) for name, data in values.pop("files").items()}
        return kind, cls(files=files, **values)


def _remove(path: Path) -> bool:
    """False: its folder is not there any more, or a link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.is_symlink() or path.exists():
        path.unlink()
    return path.parent.is_dir() and not path.parent.is_symlink()
