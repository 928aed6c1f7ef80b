"""Adds a column of Ray's pickled type, whose values make a folder when unpickled: FOLDER [WHERE DATASET]...

WHERE is the column's type: "top", "list", "struct" or "map". In files of failures, ``message`` is replaced too.
"""

import os
import pathlib
import sys

import pyarrow as pa
import pyarrow.parquet as pq
from ray.data._internal.object_extensions.arrow import ArrowPythonObjectArray


class MakesFolder:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return (os.mkdir, (sys.argv[1],))


def column(where, count):
    ext = ArrowPythonObjectArray.from_objects([MakesFolder() for _ in range(count)])
    offsets = list(range(count + 1))
    return {
        "top": ext,
        "list": pa.ListArray.from_arrays(offsets, ext),
        "struct": pa.StructArray.from_arrays([ext], names=["in"]),
        "map": pa.MapArray.from_arrays(offsets, pa.array(["k"] * count), ext),
    }[where]


for where, out in zip(sys.argv[2::2], sys.argv[3::2], strict=True):
    for path in pathlib.Path(out).rglob("*.parquet"):
        table = pq.read_table(path)
        table = table.append_column("evil", column(where, len(table)))
        if "stage" in table.column_names:
            at = table.column_names.index("message")
            table = table.set_column(at, "message", column(where, len(table)))
        pq.write_table(table, path)
