"""Tables come through shared memory as they were; what a reader holds is never written over."""

from __future__ import annotations

import gc
import os
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.core.arrow import Allocate, pack, unpack
from pipeline.sandbox import shared_memory
from pipeline.sandbox.shared_memory import BufferCache, BufferPool, SharedBuffer
from pipeline.stages.rows import FAILURE_TYPE


def _table(rows: int, width: int, allocate: Allocate = np.empty) -> pa.Table:
    arrays = [np.random.default_rng(i).integers(0, 255, (width, 3), np.uint8) for i in range(rows)]
    schema = pa.schema([pa.field("id", pa.string(), nullable=False)], {b"key": b"yes"})
    table = pa.table({"id": [str(i) for i in range(rows)]}, schema=schema)
    table = table.append_column("pixels", pack([*arrays[:-1], None], allocate))
    table = table.append_column("failures", pa.array([[] for _ in range(rows)], pa.list_(FAILURE_TYPE)))
    table = table.append_column("sound", pack([a.astype(np.float32) for a in arrays], allocate))
    return table.append_column("words", pa.array(["a", "b"] * (rows // 2)).dictionary_encode())


def _sent(table: pa.Table, values: Any = None) -> tuple[Any, pa.Table]:
    """Through a segment, as another process would read it."""
    ours = SharedBuffer()
    message = ours.write(values, table)
    theirs = SharedBuffer(os.dup(ours.fd))
    reported, done = theirs.read(message)
    assert done is not None
    return reported, done


@pytest.mark.parametrize("width", [1, 10, 100_000])
def test_a_table_arrives_as_it_was(width: int) -> None:
    table = _table(8, width)
    reported, done = _sent(table, {"x": 1})
    assert reported == {"x": 1}
    assert done.equals(table)
    assert done.schema.equals(table.schema, check_metadata=True)


def test_pieces_and_empty_tables_arrive() -> None:
    table = _table(8, 100_000)
    for part in (table.slice(3, 2), table.slice(0, 0), pa.concat_tables([table, table])):
        assert _sent(part)[1].equals(part)


def test_a_segment_grows_to_what_is_put_in_it() -> None:
    segment, pool = SharedBuffer(), BufferPool()
    for width in (10, 1_000_000, 10):
        table = _table(8, width)
        _, done = segment.read(segment.write(None, table), pool)
        assert done is not None
        assert done.equals(table)
        del done


def test_more_metadata_than_reckoned_with_is_written_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "_OVERHEAD_BYTES", 0)
    table = pa.concat_tables([_table(8, 30_000).slice(i % 7, 1) for i in range(100)])
    assert _sent(table)[1].equals(table)


def test_a_segment_is_free_once_nobody_holds_its_columns() -> None:
    pool, table = BufferPool(), _table(8, 100_000)
    segment = pool.take()
    _, done = segment.read(segment.write(None, table), pool)
    assert done is not None
    pixels = unpack(done["pixels"])
    ids = done["id"]
    del done
    gc.collect()
    assert pool.free == []
    assert pixels[0] is not None
    del pixels
    gc.collect()
    assert pool.free == [segment]
    assert ids.to_pylist() == table["id"].to_pylist()  # a small column holds no segment


def test_a_pool_keeps_few_segments_and_no_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = BufferPool()
    segments = [SharedBuffer() for _ in range(5)]
    for segment in segments:
        pool.give(segment)
    assert len(pool.free) == shared_memory._KEEP
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(segments[-1].fd)
    monkeypatch.setattr(shared_memory, "_KEEP_BYTES", 1 << 20)
    large = pool.take()
    large.write(None, _table(8, 100_000))
    pool.give(large)
    assert large not in pool.free


def test_the_other_process_knows_a_segment_again() -> None:
    known, segments = BufferCache(), [SharedBuffer() for _ in range(9)]
    first = known.get(os.dup(segments[0].fd))
    assert known.get(os.dup(segments[0].fd)) is first
    before = len(os.listdir("/proc/self/fd"))
    for segment in segments * 20:
        known.get(os.dup(segment.fd))
    assert len(os.listdir("/proc/self/fd")) <= before + 2 * shared_memory._KEEP


def test_the_other_process_keeps_no_large_segment_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "_KEEP_BYTES", 1 << 20)
    known, small, large = BufferCache(), SharedBuffer(), SharedBuffer()
    message = large.write(None, _table(8, 100_000))
    gc.collect()  # what earlier tests have left
    before = len(os.listdir("/proc/self/fd"))
    mine, _ = known.get(os.dup(large.fd)), known.get(os.dup(small.fd))
    _, done = mine.read(message)
    assert done == _table(8, 100_000)
    del mine, done
    known.drop_large()
    gc.collect()
    assert len(known.buffers) == 1
    assert len(os.listdir("/proc/self/fd")) == before + 1


def test_a_segment_that_is_dropped_is_closed() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        SharedBuffer().write(None, _table(2, 100))
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_a_segment_in_use_is_not_dropped_for_the_one_beside_it() -> None:
    """A process is given two at a time: one to read, the same with every table, and one to answer in."""
    known, asked = BufferCache(), SharedBuffer()
    for answer in [SharedBuffer() for _ in range(9)]:
        message = asked.write("reported")
        mine = known.get(os.dup(asked.fd))
        known.get(os.dup(answer.fd))
        assert mine.read(message) == ("reported", None)


def _filled(segment: SharedBuffer, width: int, rows: int = 8) -> pa.Table:
    """As a stage in the other process makes it: a column of arrays that lie in the segment, beside others."""
    return _table(rows, width, segment.empty)


@pytest.mark.parametrize("width", [10, 30_000, 1_000_000])
def test_what_was_filled_in_the_segment_is_not_copied(width: int) -> None:
    """It grows under the first column while the second is put there."""
    segment = SharedBuffer()
    for _ in range(2):
        table = _filled(segment, width)
        there, before = segment.filled, os.fstat(segment.fd).st_size
        assert (there > width) == (width > 10)
        message = segment.write("reported", table)
        assert os.fstat(segment.fd).st_size == before or width == 10, "nothing was copied behind it"
        reported, done = SharedBuffer(os.dup(segment.fd)).read(message)
        assert (reported, done) == ("reported", _table(8, width))


def test_a_segment_that_grows_while_it_is_filled_mixes_nothing_up() -> None:
    """Its old maps are unmapped, and what comes next may lie at their addresses."""
    ours = SharedBuffer()
    theirs = SharedBuffer(os.dup(ours.fd))
    random = np.random.default_rng(0)
    most = 300_000
    for _ in range(60):
        sizes = random.integers(70_000, 70_000 + most, (3, 2))
        arrays = {str(i): [random.integers(0, 255, n, np.uint8) for n in pair] for i, pair in enumerate(sizes)}
        table = pa.table({name: pack(values, ours.empty) for name, values in arrays.items()})
        message = ours.write(None, table)
        del table
        _, done = theirs.read(message)
        assert done is not None
        for name, values in arrays.items():
            assert all(np.array_equal(a, b) for a, b in zip(values, unpack(done[name]), strict=True))
        most = int(most * 1.08)


def test_slices_and_mixtures_of_what_was_filled_arrive() -> None:
    segment = SharedBuffer()
    table = _filled(segment, 30_000)
    both = pa.concat_tables([table.slice(2, 3), _table(8, 40_000), table.slice(7)])
    _, done = SharedBuffer(os.dup(segment.fd)).read(segment.write(None, both))
    assert done == pa.concat_tables([_table(8, 30_000).slice(2, 3), _table(8, 40_000), _table(8, 30_000).slice(7)])


def test_what_was_filled_for_nothing_is_gone_with_the_next_parcel() -> None:
    segment = SharedBuffer()
    _filled(segment, 30_000)
    segment.write(ValueError("the stage broke off"))
    assert segment.filled == 0
    _, done = SharedBuffer(os.dup(segment.fd)).read(segment.write(None, _filled(segment, 40_000)))
    assert done == _table(8, 40_000)


def test_columns_that_the_reader_has_do_not_travel() -> None:
    known = _table(8, 100_000)
    table = known.set_column(2, "failures", pa.array([[]] * 7 + [None], pa.list_(FAILURE_TYPE)))
    table = table.append_column("more", pa.array(range(8))).drop_columns("words")
    segment = SharedBuffer()
    message = segment.write(None, table, known)
    assert os.fstat(segment.fd).st_size < 100_000
    _, done = SharedBuffer(os.dup(segment.fd)).read(message, None, known)
    assert done is not None
    assert done.equals(table)
    assert done.schema.equals(table.schema, check_metadata=True)


def test_a_table_of_nothing_new_and_one_of_only_new_columns() -> None:
    known = _table(8, 10)
    for table in (known, known.rename_columns([f"new_{name}" for name in known.column_names]), known.slice(1)):
        segment = SharedBuffer()
        _, done = SharedBuffer(os.dup(segment.fd)).read(segment.write(None, table, known), None, known)
        assert done == table


def test_slices_of_what_was_filled_arrive() -> None:
    segment = SharedBuffer()
    for part in (slice(2, 5), slice(0, 3), slice(7, 8), slice(3, 3)):
        table = _filled(segment, 30_000)[part]
        reported, done = SharedBuffer(os.dup(segment.fd)).read(segment.write("reported", table))
        assert reported == "reported"
        assert done == _table(8, 30_000)[part]


def test_schemas_that_differ_in_little_are_not_taken_for_each_other() -> None:
    """The caches of both ends distinguish schemas by their metadata and nested names too."""
    values = [[1, None], None, [], [2]]
    item = pa.field("item", pa.int32(), metadata={"a": "b"})
    types = [
        pa.list_(pa.int32()),
        pa.list_(pa.field("element", pa.int32())),
        pa.list_(pa.field("item", pa.int32(), nullable=True)),
        pa.list_(item),
        pa.large_list(pa.int32()),
    ]
    schemas = [pa.schema([pa.field("x", one, metadata=more)]) for one in types for more in (None, {"a": "b"})]
    schemas += [one.with_metadata({"of": "all"}) for one in schemas]
    segment = SharedBuffer()
    for _ in range(2):
        for schema in schemas:
            table = pa.table([pa.array(values, schema.field("x").type)], schema=schema)
            for part in (table, table[1:3]):
                _, done = SharedBuffer(os.dup(segment.fd)).read(segment.write(None, part))
                assert done is not None
                assert done.equals(part)
                assert done.schema.equals(schema, check_metadata=True)


class _Coded(pa.ExtensionType):
    """What is stored has a dictionary, and its name does not say so."""

    def __init__(self) -> None:
        super().__init__(pa.dictionary(pa.int8(), pa.string()), "tessera.coded")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, serialized: bytes) -> _Coded:
        return cls()


def test_extension_types_arrive() -> None:
    pa.register_extension_type(_Coded())
    try:
        coded = pa.ExtensionArray.from_storage(
            _Coded(), pa.array(["a", "b", "a"], pa.dictionary(pa.int8(), pa.string()))
        )
        table = pa.table({"coded": coded})
        assert _sent(table)[1].equals(table)
    finally:
        pa.unregister_extension_type("tessera.coded")
