"""The cut: every sample gets its windows, by what its files hold and for how long."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.core.errors import ConfigError
from pipeline.core.media import MediaInfo, Span
from pipeline.dataset.diff.columns import EXTRA
from pipeline.decoders import opening
from pipeline.stages.probe import ProbeStage
from pipeline.stages.reuse import StoredTimes
from tests.stages.media_fixtures import AUDIO, IMAGE, VIDEO, bound, config, text, write_clip, write_tone


def _probe(settings: Any) -> list[dict[str, Any]]:
    settings, features, table = bound(settings)
    stage = ProbeStage(settings, features)
    stage.setup()
    return stage(table).to_pylist()


def test_windows_follow_the_media_and_modalities_their_streams(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_clip(folder / "clip.mp4", 5.0, sound_s=2.0)
    (folder / "clip.txt").write_text("a caption")
    Image.new("RGB", (8, 8)).save(folder / "lone.png")
    rows = _probe(config(folder, {"v": VIDEO, "a": AUDIO, "i": IMAGE}, window={"length_s": 2}))
    clip = [row for row in rows if row["sample_id"] == "clip"]
    assert [(r["start_s"], round(r["end_s"], 1), r["window"], r["final"]) for r in clip] == [
        (0, 2, 0, False),
        (2, 4, 1, False),
        (4, 5, 2, True),
    ]
    assert all(r["video_uri"].endswith("clip.mp4") for r in clip)
    sound = [r["audio_uri"] is not None for r in clip]
    assert sound[0]
    assert not sound[2]
    assert all(r["text_uri"] is None for r in clip)  # no feature reads text
    (lone,) = [row for row in rows if row["sample_id"] == "lone.png"]
    assert (lone["start_s"], lone["end_s"], lone["final"]) == (None, None, True)
    assert lone["image_uri"].endswith("lone.png")


def test_columns_are_taken_from_windows_of_the_same_times(tmp_path: Path, models: Path) -> None:
    """Of captions with a gap the version before had two windows; with the clip beside them there are three."""
    folder = tmp_path / "in"
    folder.mkdir()
    write_clip(folder / "clip.mp4", 6.0)
    cues = ["1\n00:00:00,000 --> 00:00:01,000\nfirst\n", "2\n00:00:04,500 --> 00:00:06,000\nlast\n"]
    (folder / "clip.srt").write_text("\n".join(cues))
    both = {"t": text(models / "bert", max_length=16), "v": VIDEO}
    old = _probe(config(folder, {"t": both["t"]}, window={"length_s": 2}))
    assert [(row["window"], row["start_s"]) for row in old] == [(0, 0.0), (1, 4.0)]
    settings, features, work = bound(config(folder, both, window={"length_s": 2}))
    carry = [{"window": 0, "file": 5, "position": 10}, {"window": 1, "file": 5, "position": 11}]
    work = work.append_column(EXTRA.field("carry"), pa.array([carry], EXTRA.field("carry").type))

    def positions(read: frozenset[Any]) -> list[tuple[float, int | None]]:
        rows = ProbeStage(settings, features, read)(work).to_pylist()
        return [(row["start_s"], row["carry_position"]) for row in rows]

    assert positions(frozenset({"text"})) == [(0.0, 10), (2.0, None), (4.0, 11)]
    assert positions(frozenset({"text", "video"})) == [(0.0, 10), (2.0, 11), (4.0, None)], "by number: the same cut"


def test_stored_rows_that_cannot_be_read_end_no_retry(tmp_path: Path) -> None:
    class Unreadable(StoredTimes):
        def of(self, number: int, position: int) -> tuple[float | None, float | None]:
            raise ConfigError("path", "a shard", "its own bytes")

    folder = tmp_path / "in"
    folder.mkdir()
    write_tone(folder / "a.wav", 1.5)
    settings, features, table = bound(config(folder, {"a": AUDIO}, window={"length_s": 1}))
    carry = [{"window": 0, "file": 0, "position": 0}, {"window": 1, "file": 0, "position": 1}]
    tried = [{"window": 1, "feature": "a", "attempts": 1}]
    work = table.append_column(EXTRA.field("replaces"), pa.array([True]))
    work = work.append_column(EXTRA.field("carry"), pa.array([carry], EXTRA.field("carry").type))
    work = work.append_column(EXTRA.field("attempts"), pa.array([tried], EXTRA.field("attempts").type))
    rows = ProbeStage(settings, features, own_times=Unreadable("out", ()))(work).to_pylist()
    assert [(row["window"], row["start_s"], row["failures"]) for row in rows] == [(0, 0.0, []), (1, 1.0, [])]


def test_windows_that_are_done_are_not_computed_again(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_tone(folder / "a.wav", 3.5)
    (folder / "bad.wav").write_bytes(b"RIFF")
    settings, features, table = bound(config(folder, {"a": AUDIO}, window={"length_s": 1}))

    def probed(done: list[int]) -> list[tuple[str, int, int, int, bool, int]]:
        work = table.append_column(EXTRA.field("replaces"), pa.array([True, False]))
        work = work.append_column(EXTRA.field("windows_done"), pa.array([done, done], pa.list_(pa.int32())))
        tried = [[{"window": 3, "feature": "a", "attempts": 2}], []]
        work = work.append_column(EXTRA.field("attempts"), pa.array(tried, EXTRA.field("attempts").type))
        rows = ProbeStage(settings, features)(work).to_pylist()
        names = ("sample_id", "window", "windows", "promised", "final")
        for row in rows:
            of_three = (row["sample_id"], row["window"]) == ("a.wav", 3)
            none = [] if row["sample_id"] == "a.wav" else None
            assert row["attempts"] == ([{"feature": "a", "attempts": 2}] if of_three else none)
        return [(*(row[name] for name in names), len(row["failures"])) for row in rows]  # type: ignore[misc]

    assert probed([]) == [
        *(("a.wav", i, 4, 4 if i == 3 else 0, i == 3, 0) for i in range(4)),
        ("bad.wav", 0, 1, 1, True, 1),
    ]
    assert probed([0, 2]) == [
        ("a.wav", 1, 4, 0, False, 0),
        ("a.wav", 3, 4, 2, True, 0),
        ("bad.wav", 0, 1, 1, True, 1),  # else no record would say why the window is missing
    ]
    assert probed([0, 1, 2, 3])[0] == ("a.wav", -1, 4, 0, True, 0)
    (folder / "a.wav").unlink()
    assert probed([0, 2])[0] == ("a.wav", 0, 1, 1, True, 1)  # gone since: reported now


def test_files_are_what_they_hold_not_what_they_are_called(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    (folder / "a.png").rename(folder / "picture.mp4")
    write_clip(folder / "c.mp4", 1.0)
    (folder / "c.mp4").rename(folder / "clip.bin")
    rows = {row["sample_id"]: row for row in _probe(config(folder, {"v": VIDEO, "i": IMAGE}))}
    assert rows["picture.mp4"]["image_uri"] is not None
    assert rows["picture.mp4"]["video_uri"] is None
    assert rows["clip.bin"]["video_uri"] is not None


def test_what_cannot_be_opened_fails_every_feature_of_its_modality_once(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "bad.mp4").write_bytes(b"\0\0\0\x20ftypisom" + b"\xff" * 100)
    (folder / "junk.bin").write_bytes(bytes(range(256)) * 4)
    rows = {row["sample_id"]: row for row in _probe(config(folder, {"v": VIDEO, "w": VIDEO, "a": AUDIO}))}
    bad = rows["bad.mp4"]["failures"]
    assert [(f["feature"], f["stage"], f["kind"]) for f in bad] == [
        ("v", "probe", "corrupt"),
        ("w", "probe", "corrupt"),
    ]
    assert bad[0]["uri"].endswith("bad.mp4")
    assert [(f["feature"], f["kind"]) for f in rows["junk.bin"]["failures"]] == [(None, "unsupported")]


def test_an_own_sound_file_comes_before_the_sound_track(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_clip(folder / "x.mp4", 1.0, sound_s=1.0)
    write_tone(folder / "x.wav", 1.0)
    (row,) = _probe(config(folder, {"v": VIDEO, "a": AUDIO}))
    assert row["audio_uri"].endswith("x.wav")
    assert row["video_uri"].endswith("x.mp4")


def test_timed_text_belongs_to_the_windows_it_overlaps(tmp_path: Path, models: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "s.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\none\n\n2\n00:00:05,000 --> 00:00:06,500\ntwo\n")
    rows = _probe(config(folder, {"t": text(models / "bert")}, window={"length_s": 2}))
    assert [(r["start_s"], r["end_s"], r["text_timed"]) for r in rows] == [
        (0, 2, True),
        (4, 6, True),
        (6, 6.5, True),
    ]


def test_a_late_cue_makes_no_rows_of_nothing(tmp_path: Path, models: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    late = "1\n00:00:01,000 --> 00:00:02,000\none\n\n2\n90:00:00,000 --> 90:00:01,000\ntwo\n"
    (folder / "lone.srt").write_text(late)
    write_clip(folder / "clip.mp4", 3.0)
    (folder / "clip.srt").write_text(late)
    (folder / "mad.srt").write_text("1\n150:00:00,000 --> 150:00:01,000\ntwo\n")
    features = {"t": text(models / "bert"), "v": VIDEO}
    rows = _probe(config(folder, features, window={"length_s": 2, "max_windows": 200_000}))
    times = {name: [r["start_s"] for r in rows if r["sample_id"] == name] for name in ("lone.srt", "clip", "mad.srt")}
    assert times == {"lone.srt": [0.0, 324_000.0], "clip": [0.0, 2.0], "mad.srt": [None]}
    clip = [row["text_uri"] is not None for row in rows if row["sample_id"] == "clip"]
    assert clip == [True, False]
    (mad,) = [row for row in rows if row["sample_id"] == "mad.srt"]
    assert [(f["feature"], f["kind"]) for f in mad["failures"]] == [("t", "limit")]
    assert "window.max_windows" in mad["failures"][0]["message"]


def test_a_broken_file_of_a_modality_is_not_replaced_by_another(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_clip(folder / "x.mp4", 1.0, sound_s=1.0)
    (folder / "x.wav").write_bytes(b"RIFF" + b"\xff" * 60)
    (row,) = _probe(config(folder, {"v": VIDEO, "a": AUDIO}))
    assert row["video_uri"] is not None
    assert row["audio_uri"] is None
    assert [(f["feature"], f["uri"].endswith("x.wav")) for f in row["failures"]] == [("a", True)]


def test_a_broken_video_beside_a_sound_file_fails_no_sound(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "x.mp4").write_bytes(b"\0\0\0\x20ftypisom" + b"\xff" * 100)
    write_tone(folder / "x.wav", 1.0)
    (row,) = _probe(config(folder, {"a": AUDIO}))
    assert row["audio_uri"].endswith("x.wav")
    assert [(f["feature"], f["uri"].endswith("x.mp4")) for f in row["failures"]] == [(None, True)]


def test_a_stream_of_an_unknown_coding_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_clip(folder / "x.mkv", 1.0, sound_s=1.0)
    data = (folder / "x.mkv").read_bytes()
    assert data.count(b"V_MPEG4/ISO/ASP") == 1
    (folder / "x.mkv").write_bytes(data.replace(b"V_MPEG4/ISO/ASP", b"V_MPEG9/ISO/ASP"))
    (row,) = _probe(config(folder, {"v": VIDEO, "a": AUDIO}))
    assert row["audio_uri"] is not None
    assert row["video_uri"] is None
    assert [(f["feature"], f["kind"]) for f in row["failures"]] == [("v", "unsupported")]
    assert "its video is in a coding" in row["failures"][0]["message"]


def test_passthrough_columns_come_through_in_their_own_types(tmp_path: Path) -> None:
    settings, features, table = bound(_tones(tmp_path))
    extra = {
        "when": pa.array([1, 1_000_000_007], pa.timestamp("ns", "UTC")),
        "price": pa.array([Decimal("1.10"), None], pa.decimal256(40, 2)),
        "tags": pa.array([{"a": [1]}, None], pa.struct([("a", pa.list_(pa.int8()))])),
    }
    for name, column in extra.items():
        table = table.append_column(name, column)
    stage = ProbeStage(settings, features)
    stage.setup()
    done = stage(table)
    assert done["window"].to_pylist() == [0, 1, 0, 1]
    for name, column in extra.items():
        assert done[name].combine_chunks().equals(column.take(pa.array([0, 0, 1, 1])))


def _tones(tmp_path: Path) -> Any:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.wav", "b.wav"):
        write_tone(folder / name, 2.0)
    return config(folder, {"a": AUDIO}, window={"length_s": 1})


def test_a_long_text_is_cut_into_token_windows(tmp_path: Path, models: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    words = " ".join(f"word{i} and more" for i in range(60))
    (folder / "t.txt").write_text(words)
    rows = _probe(config(folder, {"t": text(models / "bert", max_length=40, overflow="windows")}))
    assert len(rows) > 2
    assert [r["window"] for r in rows] == list(range(len(rows)))
    assert " ".join(words[r["text_from"] : r["text_to"]] for r in rows).split() == words.split()


def test_a_dropped_tail_leaves_an_accounted_empty_row(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_tone(folder / "a.wav", 1.0)
    (row,) = _probe(config(folder, {"a": AUDIO}, window={"length_s": 2, "tail": "drop"}))
    assert (row["start_s"], row["final"], row["failures"]) == (None, True, [])


def test_a_stream_that_covers_no_time_is_a_failure_not_a_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_tone(folder / "a.wav", 1.0)

    class Nothing(opening.OpenMedia):
        info = MediaInfo("mp3", {"audio": Span(0.0, 0.0)})

    monkeypatch.setattr(opening, "open_media", lambda *rest: Nothing())
    (row,) = _probe(config(folder, {"a": AUDIO}))
    assert [(f["feature"], f["kind"]) for f in row["failures"]] == [("a", "empty")]


def _manifest(folder: Path, features: dict[str, Any], row: dict[str, str], **sections: Any) -> list[dict[str, Any]]:
    """Rows of a manifest of one row, whose column ``extra`` is copied."""
    pq.write_table(pa.table({name: [value] for name, value in row.items()}), folder / "m.parquet")
    columns = {"id": "id", "inline_text": "text", **({"video": "video"} if "video" in row else {})}
    source = {"kind": "manifest", "path": str(folder / "m.parquet"), "columns": columns, "passthrough": ["extra"]}
    settings = config(folder, features, **sections)
    settings = type(settings).model_validate({**settings.model_dump(), "source": source})
    return _probe(settings)


def test_each_token_window_holds_its_own_part_of_an_inline_text(tmp_path: Path, models: Path) -> None:
    """The whole text in each would take memory by the square of its length."""
    words = " ".join(f"word{i}" for i in range(300))
    long = text(models / "bert", max_length=20, overflow="windows")
    rows = _manifest(tmp_path, {"t": long}, {"id": "a", "text": words, "extra": "x"})
    assert len(rows) > 20
    assert [row["text_from"] for row in rows] == [0] * len(rows)
    assert [row["text_to"] for row in rows] == [len(row["inline_text"]) for row in rows]
    assert " ".join(row["inline_text"].strip() for row in rows) == words
    over = {"t": long}
    (refused,) = _manifest(tmp_path, over, {"id": "a", "text": words, "extra": "x"}, window={"max_windows": 5})
    assert [one["kind"] for one in refused["failures"]] == ["limit"]
    assert "window.max_windows" in refused["failures"][0]["message"]


@pytest.mark.parametrize("what", ["text", "id", "extra"])
def test_what_many_windows_would_repeat_is_bounded(
    tmp_path: Path, models: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sound of hours in a few bytes makes thousands of windows, each with the sample's texts."""
    monkeypatch.setattr("pipeline.stages.probe._MAX_COPIED_BYTES", 20_000)
    write_clip(tmp_path / "clip.mp4", 5.0)
    features = {"t": text(models / "bert", max_length=16), "v": VIDEO}
    row = {"id": "a", "text": "words", "extra": "x", "video": "clip.mp4"}
    rows = _manifest(tmp_path, features, row, window={"length_s": 0.5})
    assert len(rows) == 10
    (refused,) = _manifest(tmp_path, features, {**row, what: "x" * 3000}, window={"length_s": 0.5})
    assert {(one["feature"], one["kind"]) for one in refused["failures"]} == {("t", "limit"), ("v", "limit")}
    assert "10 windows would hold 3" in refused["failures"][0]["message"]
