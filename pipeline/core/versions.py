"""Versions of the libraries that compute the values of a dataset."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import pipeline

_PACKAGES = (
    "ray",
    "torch",
    "torchvision",
    "torchaudio",
    "transformers",
    "pyarrow",
    "av",
    "decord",
    "soundfile",
    "pillow",
)


def installed() -> dict[str, str]:
    """Returns package -> version, of Python, Tessera and the libraries. Recorded in the dataset; not part of a
    fingerprint."""
    # Tessera's is not looked up: it may have come to this machine with a job, without being installed
    found = {"python": platform.python_version(), "tessera": pipeline.__version__}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
