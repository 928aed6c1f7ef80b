"""Manifests: rows with hostile values in every format, files with changed bytes, Parquet columns of any type."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from hypothesis import strategies as st

from pipeline import config, sources
from tests.fuzz import mutation
from tests.fuzz.cases import Case
from tests.fuzz.mutation import OUTSIDE

NAMES = ("id", "image", "text", "words", "extra")
EXTENSIONS = (
    "ray.data.arrow_tensor",
    "ray.data.arrow_tensor_v2",
    "ray.data.arrow_variable_shaped_tensor",
    "ray.data.arrow_pickled_object",
    "arrow.py_extension_type",
    "arrow.uuid",
    "arrow.json",
    "arrow.opaque",
    "arrow.fixed_shape_tensor",
    "x.unknown",
)
_IMAGE = {"modality": "image", "tokenizer": {"kind": "patch", "size": 16, "patch_size": 8}, "encoder": {"kind": "raw"}}
_FEATURES = {"p": {**_IMAGE, "emit": ["tokens"]}}


class Touch:
    """What a pickle of it does."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path(OUTSIDE) / "unpickled",)


class Manifests:
    seconds, memory_mb, starts = 10.0, 512, False

    def __init__(self, work: Path) -> None:
        import ray.data  # noqa: F401  it registers types of columns whose values unpickle

    def prepare(self, box: Path) -> None:
        (box / "a.png").write_bytes(b"x")

    def case(self, rng: random.Random) -> Case:
        rows = [_row(rng, number) for number in range(rng.choice((0, 1, 2, 5, 40)))]
        kind = rng.choice(("csv", "tsv", "jsonl", "parquet", "parquet"))
        data = _written(rng, kind, rows)
        if rng.random() < 0.5:
            data = mutation.changed(rng, data)
        if kind != "parquet" and rng.random() < 0.05:
            data *= rng.choice((1, 200))
        name = f"m.{kind}"
        if kind != "parquet" and rng.random() < 0.15:
            data, name = gzip.compress(data), f"{name}.gz"
        asked = [name, rng.choice(("uri", "stat")), *rng.sample(NAMES, rng.randrange(3))]
        return Case({name: data}, steps=asked)

    def strategy(self) -> Any:
        """Rows of any text, as each format writes them."""
        cells = st.none() | st.text(max_size=20)
        rows = st.lists(st.fixed_dictionaries(dict.fromkeys(NAMES, cells)), max_size=5)

        def made(rows: list[dict[str, Any]], kind: str, number: int) -> Case:
            return Case({f"m.{kind}": _written(random.Random(number), kind, rows)}, steps=[f"m.{kind}", "uri", "extra"])

        return st.builds(made, rows, st.sampled_from(["csv", "tsv", "jsonl", "parquet"]), st.integers(0, 99))

    def run(self, box: Path, case: Case) -> Any:
        name, version, *passthrough = case.steps
        raw = {
            "source": {
                "kind": "manifest",
                "path": str(box / name),
                "columns": {"id": "id", "image": "image", "inline_text": "words"},
                "version": version,
                "passthrough": passthrough,
            },
            "output": {"path": str(box / "out")},
            "features": _FEATURES,
        }
        source = sources.build(config.parse(raw).source)
        source.check("source")
        source.passthrough()
        return [len(table) for table in source.list()]


def _row(rng: random.Random, number: int) -> dict[str, Any]:
    row: dict[str, Any] = {"id": f"r{number}", "image": "a.png", "text": None, "words": "some words", "extra": number}
    for name in NAMES:
        if rng.random() < 0.15:
            row[name] = mutation.value(rng) if rng.random() < 0.3 else rng.choice(mutation.STRINGS)
        if rng.random() < 0.02:
            row.pop(name)
    return row


def _written(rng: random.Random, kind: str, rows: list[dict[str, Any]]) -> bytes:
    if kind == "jsonl":
        return b"".join(_json(row) + b"\n" for row in rows)
    if kind == "parquet":
        return _parquet(rng, rows)
    columns = {name: [None if row.get(name) is None else _text(row[name]) for row in rows] for name in NAMES}
    out = io.BytesIO()
    options = pacsv.WriteOptions(delimiter="," if kind == "csv" else "\t")
    try:
        pacsv.write_csv(pa.table(columns, pa.schema([(name, pa.string()) for name in NAMES])), out, options)
    except pa.ArrowException:  # a quote where the format has none
        return repr(rows).encode("utf-8", "surrogatepass")
    return out.getvalue()


def _json(row: Any) -> bytes:
    try:
        return json.dumps(row).encode()
    except RecursionError:
        return b"[" * 5000


def _text(value: Any) -> str:
    try:
        return str(value).encode("utf-8", "replace").decode()
    except RecursionError:
        return "deep"


def _parquet(rng: random.Random, rows: list[dict[str, Any]]) -> bytes:
    arrays, fields = [], []
    for name in NAMES:
        texts = [None if row.get(name) is None else _text(row[name]) for row in rows]
        array = pa.array(texts, pa.string())
        if rng.random() < 0.25:
            array = _odd(rng, array)
        field = pa.field(name, array.type)
        if rng.random() < 0.15:
            field, array = _extension(rng, name, len(rows))
        arrays.append(array)
        fields.append(field)
    if rng.random() < 0.05:
        arrays.append(arrays[0])
        fields.append(fields[0])
    out = io.BytesIO()
    table = pa.Table.from_arrays(arrays, schema=pa.schema(fields))
    pq.write_table(
        table, out, compression=rng.choice(("zstd", "none", "gzip")), row_group_size=rng.choice((1, 3, 1000))
    )
    return out.getvalue()


def _odd(rng: random.Random, array: pa.Array) -> pa.Array:
    """Other types of about the same content, some of which hold far more than they take in a file."""
    kind, size = rng.randrange(7), len(array)
    if kind == 0:
        return array.dictionary_encode()
    if kind == 1:
        return pa.array(
            [{"a": one, "b": [one]} for one in array.to_pylist()],
            pa.struct([("a", pa.string()), ("b", pa.list_(pa.string()))]),
        )
    if kind == 2:
        return pa.array([[one] * 3 for one in array.to_pylist()], pa.list_(pa.string()))
    if kind == 3:
        return pa.array(range(size), pa.decimal128(30, 3))
    if kind == 4:
        return pa.array([2**62] * size, pa.timestamp("ns"))
    if kind == 5:
        huge = "z" * rng.choice((1000, 10_000_000))
        return pa.DictionaryArray.from_arrays(pa.array([0] * size, pa.int32()), pa.array([huge]))
    return pa.array([b"\xff\xfe"] * size, rng.choice((pa.binary(), pa.large_binary())))


def _extension(rng: random.Random, name: str, size: int) -> tuple[pa.Field, pa.Array]:
    """A column that says of itself that it is of an extension type; its values and its parameters are pickles."""
    payload = pickle.dumps(Touch())
    array = pa.array([payload] * size, rng.choice((pa.binary(), pa.large_binary())))
    marks = {
        b"ARROW:extension:name": rng.choice(EXTENSIONS).encode(),
        b"ARROW:extension:metadata": rng.choice((payload, b"", b"{}", b"[2, 2]", b"null")),
    }
    inner = pa.field("item", array.type, metadata=marks)
    if rng.random() < 0.3:
        kind = pa.struct([inner]) if rng.random() < 0.5 else pa.list_(inner)
        rows = [{"item": payload} if pa.types.is_struct(kind) else [payload]] * size
        return pa.field(name, kind), pa.array(rows, kind)
    return pa.field(name, array.type, metadata=marks), array
