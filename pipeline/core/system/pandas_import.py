"""Keeps pandas out of processes that do not use it."""

from __future__ import annotations

import sys

import pyarrow as pa


class _NotFound:
    """A finder of modules that finds no pandas."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("pandas is kept out for a moment", name=name)


def keep_out() -> None:
    """Lets the first array of this process be made without pandas, whose import takes half a second.

    pyarrow looks for pandas once, to recognise a pandas object among the values of an array. What needs pandas, such as
    ``to_pandas``, imports it afterwards all the same; ``pa.array`` takes a series for a sequence until then.
    """
    finder = _NotFound()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(finder)
