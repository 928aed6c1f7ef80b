"""Describes a dataset for a terminal and as JSON: features, spaces, rows, failures by kind, sizes, sample rows.

`show` prints to a terminal of any width. `document` returns the same as values for `pipeline.core.terminal.json_text`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core.arrow import plain_value
from pipeline.core.errors import ConfigError, describe
from pipeline.core.schema import FAILURES, column, column_list
from pipeline.core.terminal import Console, count, print_wrapped, size
from pipeline.dataset import _open as datasets
from pipeline.dataset._values import cell_text, time_text
from pipeline.dataset.feature_info import FeatureInfo
from pipeline.dataset.reader import Dataset

_MAX_GROUPS = 100
"""Largest number of groups of failures that are listed."""
_HIDDEN_COLUMNS = ("source_version", "run_id")
"""Columns of a sample row that are shown only if ``columns`` names them."""
_BATCH_ROWS = 64


# -- a dataset ------------------------------------------------------------------------------------


def show(path: str, rows: int, console: Console, columns: Sequence[str] = ()) -> None:
    """Prints a description of the dataset at ``path``.

    Args:
        rows: sample rows to print.
        columns: columns of the sample rows: names, or several names with commas between them. Empty: all but
            `_HIDDEN_COLUMNS`.

    Raises:
        ConfigError: there is no dataset, or it has no such column.
    """
    dataset = datasets.open(path)
    names = _sample_columns(dataset, columns)
    found = _describe(path, dataset)
    console.print(f"dataset: {path}", soft_wrap=True, style="bold")
    print_wrapped(
        console,
        f"version {found['version']} · snapshot {found['snapshot']} · created {time_text(found['created'])} UTC",
    )
    sizes = found["sizes"]
    print_wrapped(
        console,
        f"{count(found['rows'], 'row')} in {count(sizes['shards'], 'shard')}, {size(sizes['shard_bytes'])} · "
        f"{count(found['failures']['count'], 'failure')}",
    )
    for name, feature in found["features"].items():
        _show_feature(name, feature, console)
    for space, members in found["spaces"].items():
        if len(members) > 1:
            print_wrapped(console, f"shared space {space}: {', '.join(members)}")
    _show_failures(found["failures"], console)
    for number, row in enumerate(_sample(dataset, names, rows, cell_text), start=1):
        print_wrapped(console, f"row {number}", style="bold")
        for name, value in row.items():
            print_wrapped(console, f"{name}: {value}", indent=2)


def document(path: str, rows: int, columns: Sequence[str] = ()) -> dict[str, Any]:
    """Returns the description of the dataset at ``path``, with unshortened sample rows. Arguments as in `show`."""
    dataset = datasets.open(path)
    names = _sample_columns(dataset, columns)
    return {
        **_describe(path, dataset),
        "sample_rows": list(_sample(dataset, names, rows, lambda _, scalar: plain_value(scalar))),
    }


def _sample_columns(dataset: Dataset, columns: Sequence[str]) -> list[str]:
    """Returns the columns of the sample rows. Raises ``ConfigError`` for an unknown name."""
    known = dataset.schema.names
    names = column_list(columns, known, "--columns")
    return names or [name for name in known if name not in _HIDDEN_COLUMNS]


def _describe(path: str, dataset: Dataset) -> dict[str, Any]:
    """Returns the description without sample rows."""
    features = {}
    for name, feature in dataset.features.items():
        values = asdict(feature)
        del values["name"]
        features[name] = {**values, "rows": _count_rows(dataset, feature)}
    return {
        "dataset": path,
        "version": dataset.root.rsplit("/", 1)[-1],
        "snapshot": dataset.snapshot,
        "created": dataset.created.isoformat(),
        "run_id": dataset.run_id,
        "rows": dataset.num_rows,
        "features": features,
        "spaces": dataset.spaces,
        "sizes": {
            "shards": len(dataset.shards),
            "shard_bytes": sum(shard.bytes for shard in dataset.shards),
            "failure_shards": len(dataset.failure_shards),
            "failure_bytes": sum(shard.bytes for shard in dataset.failure_shards),
        },
        "failures": _failures(dataset),
    }


def _count_rows(dataset: Dataset, feature: FeatureInfo) -> int:
    """Returns the number of rows that have values of ``feature``."""
    emitted = {column(feature.name, part): part for part in feature.emit}
    parts = {emitted[name]: name for name in dataset.schema.names if name in emitted}
    # a row with any part has the embedding too, which is much faster to read than tokens
    names = [parts["embedding"]] if "embedding" in parts else [*parts.values()]
    grid = column(feature.name, "grid")
    if names and "embedding" not in parts and grid in dataset.schema.names:
        names = [grid]
    valid = 0
    for batch in dataset.batches(columns=names) if names else ():
        has_value = pc.is_valid(batch.column(0))
        for i in range(1, batch.num_columns):
            has_value = pc.or_(has_value, pc.is_valid(batch.column(i)))
        valid += pc.sum(has_value).as_py() or 0
    return valid


def _show_feature(name: str, feature: dict[str, Any], console: Console) -> None:
    """Prints one feature of the description."""
    print_wrapped(console, f"feature {name}", style="bold")
    kind = f" ({feature['model_type']})" if feature["model_type"] else ""
    emitted = {
        "embedding": (feature["dim"], feature["embedding_dtype"]),
        **dict.fromkeys(("tokens", "prefix_tokens"), (feature["token_dim"], feature["token_dtype"])),
    }
    parts = []
    for part in feature["emit"]:
        dim, dtype = emitted.get(part, (None, None))
        details = " ".join(word for word in (f"dim {dim}" if dim else "", dtype or "") if word)
        parts.append(f"{part} ({details})" if details else part)
    lines = {
        "modality": feature["modality"],
        "model": f"{feature['model'] or '–'}{kind}",
        "revision": feature["revision"],
        "sha256": feature["weights_sha256"],
        "tokenizer": feature["tokenizer"],
        "head": feature["head"],
        "emits": ", ".join(parts) or "–",
        "space": f"{feature['space'] or '–'}{', normalized' if feature['normalized'] else ''}",
        "prompt": feature["prompt"],
        "rows": str(feature["rows"]),
    }
    for label, value in lines.items():
        if value is not None:
            print_wrapped(console, f"{label}: {value}", indent=2)


# -- failures -------------------------------------------------------------------------------------


def _failures(dataset: Dataset) -> dict[str, Any]:
    """Returns the number of failures: in total, by stage, by kind, by feature (``""``: no feature), and by all three,
    with an example of each group."""
    keys = ["stage", "kind", "feature"]
    first = ["sample_id", "message"]
    groups = FAILURES.empty_table().select([*keys, *first]).append_column("count", pa.array([], pa.int64()))
    for batch in dataset.failure_batches():
        found = pa.Table.from_batches([batch]).append_column("count", pa.array(np.ones(len(batch), np.int64)))
        joined = pa.concat_tables([groups, found.select(groups.column_names)], promote_options="permissive")
        # without threads, the example of a group is its first failure
        groups = joined.group_by(keys, use_threads=False).aggregate(
            [("count", "sum"), *((name, "first") for name in first)]
        )
        groups = groups.select([*keys, *(f"{name}_first" for name in first), "count_sum"])
        groups = groups.rename_columns([*keys, *first, "count"])
    groups = groups.sort_by([("count", "descending"), *((key, "ascending") for key in keys)])
    by_key = {key: Counter[str]() for key in keys}
    for key, counts in by_key.items():
        for name, number in zip(groups[key].to_pylist(), groups["count"].to_pylist(), strict=True):
            counts[name or ""] += number
    listed = groups.slice(0, _MAX_GROUPS).to_pylist()
    return {
        "count": dataset.num_failures,
        **{f"by_{key}": dict(sorted(counts.items())) for key, counts in by_key.items()},
        "groups": [
            {
                **{key: row[key] for key in [*keys, "count"]},
                "example": {"sample_id": row["sample_id"], "message": row["message"]},
            }
            for row in listed
        ],
        "groups_not_listed": len(groups) - len(listed),
    }


def _show_failures(failures: dict[str, Any], console: Console) -> None:
    """Prints the groups of failures of the description."""
    if not failures["groups"]:
        return
    print_wrapped(console, "failures", style="bold")
    for group in failures["groups"]:
        feature = f" · feature {group['feature']}" if group["feature"] else ""
        print_wrapped(console, f"{group['count']} {group['kind']} · stage {group['stage']}{feature}", indent=2)
        example = group["example"]
        print_wrapped(console, f"{example['sample_id']}: {example['message']}", indent=4)
    if rest := failures["groups_not_listed"]:
        listed = sum(group["count"] for group in failures["groups"])
        kinds = count(rest, "further kind")
        print_wrapped(console, f"{failures['count'] - listed} of {kinds}", indent=2)


# -- sample rows ----------------------------------------------------------------------------------


def _sample(
    dataset: Dataset, names: list[str], rows: int, convert: Callable[[str, pa.Scalar], Any]
) -> Iterator[dict[str, Any]]:
    """Yields the first ``rows`` rows as column -> converted value. Reads only the columns ``names``."""
    left = rows
    for batch in dataset.batches(names, batch_size=min(rows, _BATCH_ROWS)) if rows else ():
        for i in range(min(left, len(batch))):
            try:
                yield {name: convert(name, batch.column(index)[i]) for index, name in enumerate(names)}
            except (pa.ArrowException, ValueError, OverflowError, TypeError) as error:  # values that no writer produces
                raise ConfigError("path", f"a row cannot be shown ({describe(error)})", "give --rows 0") from error
        left -= min(left, len(batch))
        if not left:
            break
