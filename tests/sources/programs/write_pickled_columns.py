"""Writes a manifest with columns of Ray's pickled type, whose values make a folder when unpickled: PATH FOLDER."""

import os
import sys

import pyarrow as pa
import pyarrow.parquet as pq
from ray.data._internal.object_extensions.arrow import ArrowPythonObjectArray


class MakesFolder:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return (os.mkdir, (sys.argv[2],))


ext = ArrowPythonObjectArray.from_objects([MakesFolder(), MakesFolder()])
columns = {"top": ext, "list": pa.ListArray.from_arrays([0, 1, 2], ext)}
columns["struct"] = pa.StructArray.from_arrays([ext], names=["in"])
pq.write_table(pa.table({"pic": ["a.png", "b.png"], **columns}), sys.argv[1])
