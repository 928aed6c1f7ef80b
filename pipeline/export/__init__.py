"""Exports of a dataset for other libraries, and its card.

exporting.py       export_dataset: writes the rows of one snapshot in a format
formats/           the formats: webdataset, lance, datasets
card/              write_card: a README.md for Hugging Face and a croissant.json
results.py         ExportResult and CardResult, for a terminal and as JSON
rows.py            the rows of a snapshot as batches, checked
pinning.py         pins a snapshot while it is read
limits.py          ShardLimits; errors of the libraries
destination.py     a new local folder, which gets its name when it is complete; or a folder of an object store
_local_folder.py   a local folder that is renamed
_record.py         the record that an export leaves in its folder
libraries.py       imports the optional libraries

It imports `dataset`, `storage` and `core`. The libraries are imported when they are used.
"""

from __future__ import annotations

from pipeline.export.card.writing import write_card
from pipeline.export.exporting import FORMATS, export_dataset
from pipeline.export.limits import ShardLimits
from pipeline.export.results import CardResult, ExportResult

__all__ = ["FORMATS", "CardResult", "ExportResult", "ShardLimits", "export_dataset", "write_card"]
