"""The main job, end to end on Ray: a folder of media in, a dataset out, every file accounted for."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import polars
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline import config as configs
from pipeline import dataset, run
from pipeline.core.errors import BudgetExceeded, ConfigError, TesseraError
from tests.stages.media_fixtures import media_config
from tests.support import duck


def _picture_config(source: Path, output: Path, **sections: Any) -> configs.PipelineConfig:
    """One feature, and no model: seconds less in every process."""
    picture = {
        "modality": "image",
        "tokenizer": {"kind": "patch", "size": 16, "patch_size": 8},
        "encoder": {"kind": "raw"},
        "emit": ["tokens"],
    }
    raw = {"source": {"kind": "files", "path": str(source)}, "output": {"path": str(output)}}
    return configs.parse({**raw, "features": {"p": picture}, **sections})


def _draw(path: Path) -> None:
    Image.new("RGB", (20, 20), (7, 0, 0)).save(path)


def _spoil_sound(source: Path, target: Path) -> None:
    """A copy of a clip whose sound packets hold noise instead of their codec's data."""
    rng = np.random.default_rng(0)
    with av.open(str(source)) as before, av.open(str(target), "w") as after:
        streams = [*before.streams.video, *before.streams.audio]
        copies = {stream.index: after.add_stream_from_template(stream) for stream in streams}
        for packet in before.demux(streams):
            if packet.dts is None:
                continue
            out = packet
            if packet.stream.type == "audio":
                out = av.Packet(rng.integers(0, 256, packet.size, dtype=np.uint8).tobytes())
                out.pts, out.dts, out.duration = packet.pts, packet.dts, packet.duration
                out.time_base, out.is_keyframe = packet.time_base, True
            out.stream = copies[packet.stream.index]
            after.mux(out)


@pytest.fixture(scope="module")
def extracted(
    prepare: Callable[..., Any], models: Path, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """A corpus of real media, paired and broken among them, extracted once."""
    folder = tmp_path_factory.mktemp("media")
    corpus = folder / "corpus"
    corpus.mkdir()
    shutil.copy(data / "videos" / "moviepy__chaplin.mp4", corpus / "pair.mp4")
    (corpus / "pair.txt").write_text("a man in a hat")
    _spoil_sound(data / "videos" / "moviepy__example2.mp4", corpus / "mute.mp4")
    for name in ("esc10__baby_cry__1-187207-A.ogg", "fsdd__0_jackson_0.wav"):
        shutil.copy(data / "audio" / name, corpus / name)
    for name in ("pillow__truncated_jpeg.jpg", "dv_empty.txt", "dv_no_moov.mp4", "pillow__hopper_orientation_6.jpg"):
        shutil.copy(data / "bad" / name, corpus / name)
    config = media_config(models, corpus, folder / "out", "window.length_s=4")
    return folder / "out", run.extract(prepare(config), show_progress=False)


def test_the_books_balance(extracted: tuple[Path, dict[str, Any]]) -> None:
    out, report = extracted
    assert report["samples"] == 8
    assert report["rows_planned"] == report["rows_written"] + report["rows_failed"]
    cells = report["cells"]
    assert cells["planned"] == cells["written"] + cells["failed"]
    data = dataset.open(str(out))
    assert data.num_rows == report["rows_written"]
    assert data.num_failures == cells["failed"] == sum(report["failures_by_kind"].values())
    seen = {*data.to_arrow(["sample_id"])["sample_id"].to_pylist(), *data.failures()["sample_id"].to_pylist()}
    assert len(seen) == 8
    (stored,) = (out / "v1" / "_runs").glob("*/report.json")
    assert json.loads(stored.read_text())["rows_written"] == report["rows_written"]


def test_a_row_holds_every_modality_of_the_same_seconds(extracted: tuple[Path, dict[str, Any]]) -> None:
    rows = [row for row in dataset.open(str(extracted[0])).to_arrow().to_pylist() if row["sample_id"] == "pair"]
    assert [(row["start_s"], row["window"]) for row in rows] == [(0.0, 0), (4.0, 1), (8.0, 2)]
    for row in rows:
        assert row["video_embedding"] is not None
        assert row["audio_embedding"] is not None
        assert row["text_embedding"] == rows[0]["text_embedding"]
        for name in ("motion_times", "speech_times"):
            assert all(row["start_s"] - 0.05 <= t < row["end_s"] for t in row[name])
        for name in ("motion", "speech"):
            assert len(row[f"{name}_tokens"]) == np.prod(row[f"{name}_grid"])
            assert len(row[f"{name}_times"]) == row[f"{name}_grid"][0]
    assert rows[-1]["end_s"] == pytest.approx(9.64, abs=0.05)
    assert rows[0]["words_tokens"] is not None
    assert rows[1]["words_tokens"] is None


def test_a_broken_sound_track_costs_its_cells_only(extracted: tuple[Path, dict[str, Any]]) -> None:
    data = dataset.open(str(extracted[0]))
    rows = [row for row in data.to_arrow().to_pylist() if row["sample_id"] == "mute.mp4"]
    assert rows
    assert all(row["video_embedding"] is not None for row in rows)
    failures = [f for f in data.failures().to_pylist() if f["sample_id"] == "mute.mp4"]
    assert {f["feature"] for f in failures} == {"audio", "speech"}
    assert all(f["row_written"] for f in failures)
    assert [(f["window"], f["feature"]) for f in failures] == [(0, "audio"), (0, "speech")]
    assert {f["kind"] for f in failures} == {"corrupt"}


def test_all_embeddings_share_one_space_and_are_unit_vectors(extracted: tuple[Path, dict[str, Any]]) -> None:
    data = dataset.open(str(extracted[0]))
    (space,) = [space for space, names in data.spaces.items() if set(names) >= {"text", "image", "video", "audio"}]
    assert space.startswith("embedding_gemma2:")
    for name in ("text", "image", "video", "audio"):
        vectors = [v for v in data.to_arrow([f"{name}_embedding"])[f"{name}_embedding"].to_pylist() if v is not None]
        assert vectors
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_other_readers_read_the_same(extracted: tuple[Path, dict[str, Any]]) -> None:
    out, report = extracted
    files = sorted(str(path) for path in (out / "v1" / "data").glob("*.parquet"))
    mine = dataset.open(str(out)).to_arrow().to_pylist()
    assert len(mine) == report["rows_written"]
    key = lambda row: (row["sample_id"], row["window"])  # noqa: E731
    arrow = pq.ParquetDataset(files).read().to_pylist()
    assert sorted(arrow, key=key) == sorted(mine, key=key)
    ours = {key(row): row for row in mine}
    for row in polars.read_parquet(files).to_dicts():
        assert row["speech_grid"] == ours[key(row)]["speech_grid"]
        assert row["audio_embedding"] == ours[key(row)]["audio_embedding"]
    _, found = duck.query(f'select sample_id, "window", len(speech_tokens) n from read_parquet({files})')
    for sample_id, window, count in found:
        tokens = ours[sample_id, window]["speech_tokens"]
        assert count == (None if tokens is None else len(tokens))


def test_a_second_run_into_the_same_place_computes_nothing(
    extracted: tuple[Path, dict[str, Any]], models: Path, prepare: Callable[..., Any]
) -> None:
    out, _ = extracted
    config = media_config(models, out.parent / "corpus", out, "window.length_s=4")
    before = dataset.open(str(out)).to_arrow()
    report = run.extract(prepare(config), show_progress=False)
    assert (report["decoded"], report["samples"], report["samples_by_class"]["unchanged"]) == (0, 0, 8)
    assert dataset.open(str(out)).to_arrow().equals(before)
    with pytest.raises(
        ConfigError, match=r"config: it is not what version 'v1' .*window\.length_s is 4\.0 there, 10\.0"
    ):
        run.plan(run.prepare(media_config(models, out.parent / "corpus", out)))


def test_past_the_budget_the_dataset_is_committed_and_the_run_fails(
    prepare: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And with paths of this process's working directory: the workers' is where Ray was started."""
    corpus = tmp_path / "in"
    corpus.mkdir()
    for i in range(3):
        _draw(corpus / f"{i}.png")
    (corpus / "bad.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    config = _picture_config(Path("in"), Path("out"), failures={"max_fraction": 0.1, "min_rows": 2})
    with pytest.raises(BudgetExceeded, match=r"1 of 4 rows failed \(25\.0%; 1 empty\), over the budget"):
        run.extract(prepare(config), show_progress=False)
    assert dataset.open(str(tmp_path / "out")).num_rows == 3


def test_a_lost_row_ends_the_run_and_commits_nothing(
    prepare: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.dataset.shards.write_result import Written

    corpus = tmp_path / "in"
    corpus.mkdir()
    _draw(corpus / "a.png")
    monkeypatch.setattr(Written, "problems", lambda self: ["one row is gone"])
    with pytest.raises(TesseraError, match="do not balance: one row is gone"):
        run.extract(prepare(_picture_config(corpus, tmp_path / "out")), show_progress=False)
    with pytest.raises(ConfigError):
        dataset.open(str(tmp_path / "out"))


def _decoded_s(path: Path, kind: str) -> tuple[float, float] | None:
    """End of what PyAV decodes of a stream, counted from the container's start, and its longest frame; seconds."""
    with av.open(str(path)) as container:
        covers = av.stream.Disposition.attached_pic
        streams = [s for s in getattr(container.streams, kind) if not s.disposition & covers]
        if not streams:
            return None
        start = None if container.start_time is None else container.start_time / 1_000_000
        end, longest = 0.0, 0.0
        for frame in container.decode(streams[0]):
            if kind == "audio":
                seconds = frame.samples / frame.sample_rate
            else:
                seconds = float((frame.duration or 0) * frame.time_base) or float(1 / streams[0].average_rate)
            start = frame.time if start is None else start
            end, longest = max(end, frame.time - start + seconds), max(longest, seconds)
        return end, longest


@pytest.mark.slow
def test_all_real_media_no_file_lost_every_second_covered(
    prepare: Callable[..., Any], models: Path, data: Path, tmp_path: Path
) -> None:
    source = f"{data}/{{images,videos,audio,text}}/**"
    report = run.extract(prepare(media_config(models, Path(source), tmp_path / "out")), show_progress=False)
    found = dataset.open(str(tmp_path / "out"))
    assert report["rows_failed"] == 0
    covered: dict[str, float] = {}
    for row in found.to_arrow(["sample_id", "end_s"]).to_pylist():
        covered[row["sample_id"]] = max(covered.get(row["sample_id"], 0.0), row["end_s"] or 0.0)
    for folder, kinds in (("images", ()), ("text", ()), ("audio", ("audio",)), ("videos", ("video", "audio"))):
        with (data / folder / "manifest.csv").open(encoding="utf-8") as file:
            listed = [row["path"] for row in csv.DictReader(file)]
        assert [path for path in listed if f"{folder}/{path}" not in covered] == []
        for path in listed if kinds else ():
            decoded = [found for kind in kinds if (found := _decoded_s(data / folder / path, kind))]
            end, frame = max(end for end, _ in decoded), max(longest for _, longest in decoded)
            assert covered[f"{folder}/{path}"] == pytest.approx(end, abs=frame + 2e-3), path


@pytest.mark.slow
def test_every_file_of_the_bad_media_is_a_row_or_a_failure(
    prepare: Callable[..., Any], models: Path, data: Path, tmp_path: Path
) -> None:
    run.extract(prepare(media_config(models, data / "bad", tmp_path / "out")), show_progress=False)
    found = dataset.open(str(tmp_path / "out"))
    ids = {*found.to_arrow(["sample_id"])["sample_id"].to_pylist(), *found.failures()["sample_id"].to_pylist()}
    with (data / "bad" / "manifest.csv").open(encoding="utf-8") as file:
        listed = [row["path"] for row in csv.DictReader(file)]
    lost = [path for path in listed if path not in ids and path.rsplit(".", 1)[0] not in ids]
    assert lost == []
    assert "internal" not in set(found.failures()["kind"].to_pylist())


def test_pools_that_ask_for_gpus_where_there_are_none(tmp_path: Path) -> None:
    """By choice a run goes on without them, and says so."""
    (tmp_path / "in").mkdir()
    _draw(tmp_path / "in" / "a.png")
    pools = {"pools": {"default": {"num_gpus": 1}}}
    refused = _picture_config(tmp_path / "in", tmp_path / "out", compute=pools)
    with pytest.raises(ConfigError, match=r"compute\.pools\.default\.num_gpus: 1; this machine has no GPU"):
        run.extract(run.prepare(refused, engine_name="local"), show_progress=False)
    chosen = _picture_config(tmp_path / "in", tmp_path / "out", compute={**pools, "missing_gpus": "use_cpu"})
    report = run.extract(run.prepare(chosen, engine_name="local"), show_progress=False)
    assert report["rows_written"] == 1
    assert report["warnings"] == ["compute.pools ask for GPUs, and there are none: encoders ran on CPUs"]
    (node,) = report["nodes"]
    assert (node["rows"], node["alive"], node["gpus"], report["ray_job"]) == (1, True, 0.0, None)
    assert report["workers"] == {key: node[key] for key in ("processes", "peak_memory_bytes")}
