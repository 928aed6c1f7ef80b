"""What a dataset holds, for a person and as JSON: features, spaces, rows, failures by kind, sizes, sample rows.

``show...`` prints to a terminal of any width; ``..._document`` returns the same as plain values for
`pipeline.core.terminal.json_text`.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import dataset as datasets
from pipeline import snapshots, storage
from pipeline.core.errors import ConfigError, describe
from pipeline.core.schema import FAILURES, column
from pipeline.core.terminal import Console, count, json_text, print_table, print_wrapped
from pipeline.report import size
from pipeline.upkeep import Done

_MOST_GROUPS = 100
"""Groups of failures that are listed."""
_BOOKKEEPING = ("source_version", "run_id")
"""Columns that a sample row shows only where ``columns`` names them."""
_BATCH_ROWS = 64
_SHOWN_VALUES = 4
"""A list of more values is shown by its first ones and its length."""
_SHOWN_TEXT = 160
"""Characters; a longer text is shown by its two ends and its length."""


# -- a dataset ------------------------------------------------------------------------------------


def show(path: str, rows: int, console: Console, columns: Sequence[str] = ()) -> None:
    """Prints what the dataset at ``path`` holds.

    Args:
        rows: sample rows to print.
        columns: of the sample rows, each a name or names with commas between them. None: all but `_BOOKKEEPING`.

    Raises:
        ConfigError: there is no dataset, or no such column.
    """
    dataset = datasets.open(path)
    names = _chosen(dataset, columns)
    found = _describe(path, dataset)
    console.print(f"dataset: {path}", soft_wrap=True, style="bold")
    print_wrapped(
        console, f"version {found['version']} · snapshot {found['snapshot']} · created {_time(found['created'])} UTC"
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
    for number, row in enumerate(_sample(dataset, names, rows, _cell), start=1):
        print_wrapped(console, f"row {number}", style="bold")
        for name, value in row.items():
            print_wrapped(console, f"{name}: {value}", indent=2)


def document(path: str, rows: int, columns: Sequence[str] = ()) -> dict[str, Any]:
    """Returns what the dataset at ``path`` holds, with whole sample rows. Arguments and errors are those of `show`."""
    dataset = datasets.open(path)
    names = _chosen(dataset, columns)
    return {
        **_describe(path, dataset),
        "sample_rows": list(_sample(dataset, names, rows, lambda _, scalar: _value(scalar))),
    }


def _chosen(dataset: datasets.Dataset, columns: Sequence[str]) -> list[str]:
    """Returns the columns of the sample rows. Raises ``ConfigError`` for a name that there is not."""
    there = dataset.schema.names
    parts = [[one] if one in there else [part.strip() for part in one.split(",")] for one in columns]
    names = list(dict.fromkeys(name for part in parts for name in part if name))
    for name in names:
        if name not in there:
            raise ConfigError("--columns", f"there is no column {name!r}", f"one of: {', '.join(there)}")
    return names or [name for name in there if name not in _BOOKKEEPING]


def _describe(path: str, dataset: datasets.Dataset) -> dict[str, Any]:
    features = {}
    for name, feature in dataset.features.items():
        values = asdict(feature)
        del values["name"]
        features[name] = {**values, "rows": _rows_with(dataset, feature)}
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


def _rows_with(dataset: datasets.Dataset, feature: datasets.Feature) -> int:
    """Returns how many rows have values of ``feature``."""
    emitted = {column(feature.name, part): part for part in feature.emit}
    parts = {emitted[name]: name for name in dataset.schema.names if name in emitted}
    # the embedding is there whenever one of the others is; reading the tokens would take far longer
    names = [parts["embedding"]] if "embedding" in parts else [*parts.values()]
    grid = column(feature.name, "grid")
    if names and "embedding" not in parts and grid in dataset.schema.names:
        names = [grid]
    valid = 0
    for batch in dataset.batches(columns=names) if names else ():
        some = pc.is_valid(batch.column(0))
        for i in range(1, batch.num_columns):
            some = pc.or_(some, pc.is_valid(batch.column(i)))
        valid += pc.sum(some).as_py() or 0
    return valid


def _show_feature(name: str, feature: dict[str, Any], console: Console) -> None:
    print_wrapped(console, f"feature {name}", style="bold")
    kind = f" ({feature['model_type']})" if feature["model_type"] else ""
    emitted = {
        "embedding": (feature["dim"], feature["embedding_dtype"]),
        **dict.fromkeys(("tokens", "prefix_tokens"), (feature["token_dim"], feature["token_dtype"])),
    }
    parts = []
    for part in feature["emit"]:
        dim, dtype = emitted.get(part, (None, None))
        about = " ".join(word for word in (f"dim {dim}" if dim else "", dtype or "") if word)
        parts.append(f"{part} ({about})" if about else part)
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


def _failures(dataset: datasets.Dataset) -> dict[str, Any]:
    """Returns the number of failures: of all, by kind, by stage, by feature (``""``: of none), and by all three with an
    example each."""
    keys = ["stage", "kind", "feature"]
    first = ["sample_id", "message"]
    groups = FAILURES.empty_table().select([*keys, *first]).append_column("count", pa.array([], pa.int64()))
    for batch in dataset.failure_batches():
        found = pa.Table.from_batches([batch]).append_column("count", pa.array(np.ones(len(batch), np.int64)))
        joined = pa.concat_tables([groups, found.select(groups.column_names)], promote_options="permissive")
        # without threads: the first of a group is the one that comes first
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
    listed = groups.slice(0, _MOST_GROUPS).to_pylist()
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
    dataset: datasets.Dataset, names: list[str], rows: int, convert: Callable[[str, pa.Scalar], Any]
) -> Iterator[dict[str, Any]]:
    """Yields the first ``rows`` rows: column -> what ``convert`` makes of it. Reads the columns ``names`` only."""
    left = rows
    for batch in dataset.batches(names, batch_size=min(rows, _BATCH_ROWS)) if rows else ():
        for i in range(min(left, len(batch))):
            try:
                yield {name: convert(name, batch.column(at)[i]) for at, name in enumerate(names)}
            except (pa.ArrowException, ValueError, OverflowError, TypeError) as error:  # values that no writer makes
                raise ConfigError("path", f"a row cannot be shown ({describe(error)})", "give --rows 0") from error
        left -= min(left, len(batch))
        if not left:
            break


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _value(scalar: pa.Scalar) -> Any:
    """Returns a stored value as plain Python: lists whole, times as text in their full resolution."""
    if not scalar.is_valid:
        return None
    kind = scalar.type
    if _is_list(kind):
        inner = kind.value_type
        while _is_list(inner):
            inner = inner.value_type
        if pa.types.is_primitive(inner) and not pa.types.is_temporal(inner):
            return scalar.values.to_pylist()
        return [_value(one) for one in scalar.values]
    if pa.types.is_struct(kind):
        return {kind.field(i).name: _value(scalar[i]) for i in range(kind.num_fields)}
    if pa.types.is_temporal(kind):
        try:
            return scalar.cast(pa.string()).as_py()
        except pa.ArrowException:  # of no text
            return str(scalar.value)
    return scalar.as_py()


def _cell(name: str, scalar: pa.Scalar) -> str:
    """Returns the text of a column of a sample row. An id stays whole, so that it can be copied."""
    return f'"{scalar.as_py()}"' if name == "sample_id" and scalar.is_valid else _short(scalar)


def _short(scalar: pa.Scalar, digits: int = 10) -> str:
    """Returns a stored value in few words: ``[0.0123, -0.4, …] 512 x float32``, ``196 x 768 float16``, ``null``.

    Args:
        digits: of numbers in double precision.
    """
    if not scalar.is_valid:
        return "null"
    kind = scalar.type
    if _is_list(kind):
        return _short_list(scalar.values, kind.value_type)
    value = _value(scalar)
    if isinstance(value, str):
        return _short_text(value, '"')
    if isinstance(value, bytes):
        return count(len(value), "byte")
    if isinstance(value, float):
        return f"{value:.{digits if pa.types.is_float64(kind) else 4}g}"
    return _short_text(json_text(value))


def _short_list(values: pa.Array, kind: pa.DataType) -> str:
    if pa.types.is_fixed_size_list(kind) and not pa.types.is_nested(kind.value_type):
        return f"{len(values)} x {kind.list_size} {_dtype(kind.value_type)}"
    kept = values if len(values) <= _SHOWN_VALUES else values.slice(0, _SHOWN_VALUES // 2)
    parts = [_short(one, digits=6) for one in kept] + (["…"] if len(kept) < len(values) else [])
    return f"[{', '.join(parts)}] {len(values)} x {_dtype(kind)}"


def _dtype(kind: pa.DataType) -> str:
    """Returns the name of a type as numpy has it: ``float16``, not ``halffloat``."""
    if pa.types.is_floating(kind):
        return f"float{kind.bit_width}"
    return "list" if _is_list(kind) else _short_text(str(kind))


def _short_text(text: str, quote: str = "") -> str:
    """Returns ``text``, or its two ends and its length."""
    if len(text) <= _SHOWN_TEXT:
        return f"{quote}{text}{quote}"
    most = _SHOWN_TEXT // 2
    return f"{quote}{text[:most]}…{text[-most:]}{quote} ({len(text)} characters)"


# -- snapshots and versions -----------------------------------------------------------------------


def snapshots_document(path: str, version: str | None) -> dict[str, Any]:
    """Returns the snapshots of a version, oldest first. Raises ``ConfigError`` if there is none."""
    root = datasets.open(path, version).root
    found = []
    for number in sorted(snapshots.numbers(root)):
        one = snapshots.read(root, number)
        found.append(
            {
                "snapshot": number,
                "created": one.created,
                "kind": one.kind,
                "run_id": one.run_id,
                "rows": sum(file.live for file in one.shards),
                "failures": sum(file.live for file in one.failures),
                "shards": len(one.shards),
                "bytes": sum(file.bytes for file in one.files()),
            }
        )
    return {"dataset": path, "version": root.rsplit("/", 1)[-1], "snapshots": found}


def show_snapshots(path: str, version: str | None, console: Console) -> None:
    """Prints the snapshots of a version, oldest first. Raises ``ConfigError`` if there is none."""
    figures = ("rows", "failures", "shards")
    rows = [
        [str(one["snapshot"]), _time(one["created"]), one["kind"], one["run_id"], *(str(one[name]) for name in figures)]
        for one in snapshots_document(path, version)["snapshots"]
    ]
    print_table(console, ["snapshot", "created (UTC)", "by", "run", *figures], rows, figures)


def versions_document(path: str) -> dict[str, Any]:
    """Returns the versions of a dataset. Raises ``ConfigError`` if there is none."""
    current = snapshots.current(path)
    if current is None:
        raise snapshots.no_dataset(path)
    found = []
    for name in snapshots.versions(path):
        one = snapshots.newest(storage.join(path, name))
        assert one is not None
        found.append(
            {
                "version": name,
                "current": name == current,
                "snapshot": one.number,
                "created": one.created,
                "rows": sum(file.live for file in one.shards),
                "failures": sum(file.live for file in one.failures),
                "features": list(one.identities.get("features", {})),
            }
        )
    return {"dataset": path, "current": current, "versions": found}


def show_versions(path: str, console: Console) -> None:
    """Prints the versions of a dataset. Raises ``ConfigError`` if there is none."""
    rows = [
        [
            f"{one['version']} (current)" if one["current"] else one["version"],
            str(one["snapshot"]),
            _time(one["created"]),
            str(one["rows"]),
            ", ".join(one["features"]),
        ]
        for one in versions_document(path)["versions"]
    ]
    print_table(console, ["version", "snapshot", "created (UTC)", "rows", "features"], rows, ["snapshot", "rows"])


def _time(created: str) -> str:
    """Returns a time of a snapshot in UTC, to a second."""
    try:
        utc = datetime.datetime.fromisoformat(created).astimezone(datetime.UTC)
    except OverflowError:  # before the year 1
        return created
    return f"{utc:%Y-%m-%d %H:%M:%S}"


# -- upkeep ---------------------------------------------------------------------------------------

_FIGURES = {
    "rewrote": {"rewritten": "files_rewritten", "removed": "deleted_rows_left_out", "bytes": "bytes_written"},
    "rolled back": {},
    "forgot": {"rewritten": "files_rewritten", "removed": "rows_and_failures_removed", "bytes": "bytes_written"},
    "vacuumed": {"removed": "files_deleted", "bytes": "bytes_freed"},
    "discarded": {"removed": "runs_removed"},
}


def done_document(what: str, path: str, done: Iterable[Done]) -> dict[str, Any]:
    """Returns what upkeep did to each version."""
    names = _FIGURES[what]
    versions = [
        {
            "version": one.version,
            **({"snapshot": one.snapshot} if one.snapshot else {}),
            **{name: getattr(one, attribute) for attribute, name in names.items()},
        }
        for one in done
    ]
    return {"dataset": path, "versions": versions}


def show_done(what: str, done: Iterable[Done], console: Console) -> None:
    """Prints what upkeep did, a line per version."""
    for one in done:
        files, written = count(one.rewritten, "file"), f"wrote {size(one.bytes)}"
        result = {
            "rewrote": f"{files} rewritten, {count(one.removed, 'deleted row')} left out, {written}",
            "rolled back": "the rows are those of the old snapshot again",
            "forgot": f"{count(one.removed, 'row or failure', 'rows and failures')} removed from {files}, {written}",
            "vacuumed": f"{count(one.removed, 'file')} deleted, {size(one.bytes)} freed",
            "discarded": f"{count(one.removed, 'run')} removed, with all files",
        }[what]
        snapshot = f" · snapshot {one.snapshot}" if one.snapshot else ""
        print_wrapped(console, f"{one.version}: {result}{snapshot}")
