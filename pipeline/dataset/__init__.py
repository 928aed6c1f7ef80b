"""The versioned dataset: reading, writing, committing, comparing it with a corpus, and maintenance.

_open.py               opens a dataset: finds the version and the snapshot. Training jobs call `dataset.open`
reader.py              Dataset: reads a snapshot as Arrow, torch or Ray
feature_info.py        FeatureInfo: the description of a stored feature in the footers
collate/               batches as tensors: padded, packed or nested
_ray_rows.py           rows as a Ray dataset
_footer.py             the lineage, features and schema in the footer of the newest file
_checks.py             checks of column names and of the width of an embedding
loading/               batches for training, in one order for any number of ranks and workers
shards/                writes Parquet files of rows, and reads their rows that are not deleted
commit/                snapshots, versions, the lease, and the transaction from one snapshot to the next
diff/                  compares the listing of the corpus with the content of the dataset
maintenance.py         compact, rollback, forget, vacuum, pin, unpin
_maintenance/          the parts of maintenance.py
discard.py             removes a version that no run has committed
describe.py            describes a dataset, for a terminal and as JSON
describe_versions.py   describes snapshots, versions and the results of maintenance
_values.py             formats stored values for a terminal and for JSON
arrow_memory.py        memory for the values of batches
output.py              OutputConfig: where a dataset is written

It imports `parquet`, `storage` and `core`. torch and Ray are imported only by the functions that need them.
"""

from __future__ import annotations

from pipeline.dataset._open import open
from pipeline.dataset.feature_info import FeatureInfo
from pipeline.dataset.loading.batches import mix
from pipeline.dataset.reader import Dataset

__all__ = ["Dataset", "FeatureInfo", "mix", "open"]
