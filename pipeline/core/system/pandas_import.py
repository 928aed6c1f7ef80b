"""Keeps pandas out of worker processes."""

from __future__ import annotations

import sys

import pyarrow as pa


class PandasBlocker:
    """A finder of modules that raises for pandas."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("pyarrow's import of pandas is skipped", name=name)


def skip() -> None:
    """Skips the import of pandas, half a second, with which pyarrow makes the first array of a process.

    Only for processes that convert no times to Python objects: with pandas, nanoseconds become ``pandas.Timestamp``
    and ``pandas.Timedelta``; without it ``datetime`` and ``timedelta``, or an error if they are no whole microseconds.
    Until something needs pandas (such as ``to_pandas``, which imports it all the same), ``pa.array`` takes a series for
    a sequence.
    """
    blocker = PandasBlocker()
    sys.meta_path.insert(0, blocker)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(blocker)
