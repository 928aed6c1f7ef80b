"""The versioned dataset: how it is read, written, committed, compared with a corpus and kept in order.

reader.py              Dataset: snapshots, Arrow, torch, Ray. `dataset.open` is the way in for training jobs
feature_info.py        a stored feature, as the footers describe it
torch_rows.py          rows as an IterableDataset
collate.py             rows or batches to tensors
shards/                Parquet files of rows: writing them, reading their live rows
commit/                snapshots, versions, the lease, and a transaction from one snapshot to the next
diff/                  the corpus's listing against what the dataset holds
maintenance.py         compact, rollback, forget, vacuum
discard.py             removing a version that no run has committed
_rewrite.py            the live rows of several files, written into new ones
describe.py            what a dataset holds, for a terminal and as JSON
describe_versions.py   the same of snapshots, versions and maintenance
_values.py             values of a row, short enough for a terminal
output.py              OutputConfig: where a dataset is written

It imports `parquet`, `storage` and `core`. torch and Ray are imported only by the methods that need them.
"""

from __future__ import annotations

from pipeline.dataset.feature_info import FeatureInfo
from pipeline.dataset.reader import Dataset, open

__all__ = ["Dataset", "FeatureInfo", "open"]
