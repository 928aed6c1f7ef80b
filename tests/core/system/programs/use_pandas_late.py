"""Uses Arrow without pandas, then with it."""

import sys

import pyarrow as pa

from pipeline.core.system import pandas_import

pandas_import.skip()
import pyarrow.dataset  # noqa: E402
import pyarrow.parquet  # noqa: E402

table = pa.table({"x": pa.array([1.0, None])})
table.to_pylist(), table["x"].to_numpy()
assert "pandas" not in sys.modules, "an array imported it"
assert table.to_pandas()["x"].isna().tolist() == [False, True]
import pandas  # noqa: E402

assert pa.array(pandas.Series([1.0, float("nan")])).null_count == 1, "a series is not recognised"
pandas_import.skip()
assert pa.Table.from_pandas(table.to_pandas())["x"].null_count == 1
