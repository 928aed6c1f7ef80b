"""The reference opens the same media as ours and computes the same vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.benchmark import _reference_media, corpus, reference
from pipeline.config.features import BoundFeature, bind
from pipeline.core.media import FpsSampling, Sampling, UniformSampling
from pipeline.decoders import DecodersConfig, open_media
from pipeline.stages.decode import DecodeStage
from pipeline.stages.encode import EncodeStage
from pipeline.stages.probe import ProbeStage
from pipeline.storage.blob import Blob
from tests.benchmark.measured import caption, picture, sound
from tests.stages.media_fixtures import AUDIO, IMAGE, VIDEO, bound, config, text, write_clip, write_tone

SOUNDS = (
    "fsdd__1_theo_2.wav",
    "ljspeech__LJ001-0003.flac",
    "ljspeech__LJ001-0011.mp3",
    "torchcodec__sine_mono_f32.wav",
)


def _rows(settings: Any) -> tuple[list[dict[str, Any]], BoundFeature]:
    _, (feature, *_), samples = bound(settings)
    probe = ProbeStage(settings, (feature,))
    probe.setup()
    return probe(samples).to_pylist(), feature


# -- media -------------------------------------------------------------------------------------------


def _ours(path: Path, modality: Any) -> Any:
    return open_media(Blob(str(path)), modality, DecodersConfig())


@pytest.mark.parametrize("name", ["002.jpg", "004.jpg", "007.png", "009.png"])
def test_pictures_are_ours_to_the_pixel(demo_corpus: Path, name: str) -> None:
    path = demo_corpus / "pictures" / name
    made = np.asarray(_reference_media.read_picture({"image_uri": str(path)}))
    np.testing.assert_array_equal(made, np.asarray(Image.open(path).convert("RGB")))
    with _ours(path, "image") as media:
        np.testing.assert_array_equal(made, media.image().pixels)


def test_real_pictures_are_ours_to_the_pixel(data: Path) -> None:
    for name in ("pillow__hopper.jpg", "mdn__bee.jpg", "pillow__hopper.webp", "torchcodec__gradient.png"):
        with _ours(data / "images" / name, "image") as media:
            ours = media.image().pixels
        np.testing.assert_array_equal(_reference_media.read_picture({"image_uri": str(data / "images" / name)}), ours)


def test_texts_are_read_whole_or_as_the_part_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("drüben steht ein Kreis")
    file = {"inline_text": None, "text_uri": str(tmp_path / "a.txt"), "text_from": None, "text_to": None}
    assert _reference_media.read_text(file) == "drüben steht ein Kreis"
    assert _reference_media.read_text({**file, "text_from": 7, "text_to": 12}) == "steht"
    assert _reference_media.read_text({**file, "inline_text": "words", "text_uri": None}) == "words"


@pytest.mark.parametrize(
    ("start_s", "end_s", "sampling", "count"),
    [
        (0.0, 3.0, UniformSampling(4), 4),
        (1.0, 2.0, UniformSampling(4), 4),
        (2.5, 2.6, UniformSampling(4), 4),  # one picture, four times
        (0.0, 3.0, FpsSampling(2), 6),
        (1.0, 2.0, FpsSampling(2), 2),
        (0.0, 3.0, FpsSampling(5, max_frames=7), 7),
        (0.0, 0.1, FpsSampling(2), 1),
    ],
)
def test_frames_are_as_many_as_ours_and_of_the_same_time(
    tmp_path: Path, start_s: float, end_s: float, sampling: Sampling, count: int
) -> None:
    """The clip's grey encodes the time: 10 + 2 for each tenth of a second."""
    write_clip(tmp_path / "x.mp4", 3.0)
    frames = _reference_media.read_frames(
        {"video_uri": str(tmp_path / "x.mp4"), "start_s": start_s, "end_s": end_s}, sampling
    )
    assert frames.shape == (count, 48, 64, 3)
    assert frames.dtype == np.uint8
    times = (frames.mean(axis=(1, 2, 3)) - 10) / 20
    assert times[0] == pytest.approx(start_s, abs=0.15)
    assert np.all(np.diff(times) >= -0.01)
    assert times.max() < end_s + 0.1
    with _ours(tmp_path / "x.mp4", "video") as media:
        ours = media.frames(sampling, start_s, end_s)
    assert ours.pixels.shape == frames.shape
    np.testing.assert_allclose(times, ours.times_s, atol=0.6)  # in the middle of its slice, or at its end


@pytest.mark.parametrize("name", ["asl__yes.mkv", "mdn__flower.mp4", "torchcodec__testsrc2_vp9.webm"])
def test_real_frames_are_as_many_as_ours(data: Path, name: str) -> None:
    path, sampling = data / "videos" / name, UniformSampling(4)
    with _ours(path, "video") as media:
        end_s = media.info.spans["video"].end_s
        ours = media.frames(sampling, 0.0, end_s)
    made = _reference_media.read_frames({"video_uri": str(path), "start_s": 0.0, "end_s": end_s}, sampling)
    assert made.shape == ours.pixels.shape
    assert abs(float(made.mean()) - float(ours.pixels.mean())) < 8


def test_windows_of_a_sound_are_ours(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    wave = write_tone(folder / "a.wav", 2.3)
    rows, feature = _rows(config(folder, {"a": AUDIO}, window={"length_s": 1}))
    load = reference._loader(feature)
    pieces = [load(row) for row in rows]
    assert [piece.dtype for piece in pieces] == [np.float32] * 3
    assert [len(piece) for piece in pieces] == pytest.approx([8000, 8000, 2400], abs=1)
    np.testing.assert_array_equal(np.concatenate(pieces)[: len(wave) - 3], wave[: len(wave) - 3])


@pytest.mark.parametrize("name", SOUNDS)
def test_real_sounds_are_near_ours(data: Path, name: str) -> None:
    path = data / "audio" / name
    with _ours(path, "audio") as media:
        end_s = media.info.spans["audio"].end_s
        ours = media.waveform(16_000, 0.0, end_s).samples
    _near(_reference_media.read_sound({"audio_uri": str(path), "start_s": 0.0, "end_s": end_s}, 16_000), ours, 16)


def test_the_sound_of_a_clip_is_near_ours(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    write_clip(path, 2.0, 2.0)
    with _ours(path, "audio") as media:
        ours = media.waveform(16_000, 0.0, 2.0).samples
    _near(_reference_media.read_sound({"audio_uri": str(path), "start_s": 0.0, "end_s": 2.0}, 16_000), ours, 1024)
    later = _reference_media.read_sound({"audio_uri": str(path), "start_s": 1.0, "end_s": 2.0}, 16_000)
    assert len(later) == 16_000  # of the packets that the container has there, no more than was asked for
    with _ours(path, "audio") as media:
        ours = media.waveform(16_000, 1.0, 2.0).samples
    _near(later[1024:], ours[1024:], 0)  # the first packet lacks what it shares with the one before


def _near(made: np.ndarray, ours: np.ndarray, samples: int) -> None:
    """As long, give or take so many ``samples``, and a hundredth off at most."""
    assert made.dtype == np.float32
    assert abs(len(made) - len(ours)) <= samples
    shared = min(len(made), len(ours))
    in_fresh_process = made[:shared] - ours[:shared]
    assert np.sqrt(np.mean(in_fresh_process**2)) <= 0.01 * np.sqrt(np.mean(ours**2))


# -- models ------------------------------------------------------------------------------------------

POOLER = {"pool": "pooler"}


def _both(corpus_folder: Path, settings: dict[str, Any], count: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Pooled vectors of a few media: the reference's forward, and ours."""
    whole = config(corpus_folder, {"x": settings})
    (feature,) = bind(whole)
    probe, decode, encode = (stage(whole, (feature,)) for stage in (ProbeStage, DecodeStage, EncodeStage))
    for stage in (probe, decode, encode):
        stage.setup()
    rows = [row for row in probe(corpus.draw(whole, 40)).to_pylist() if reference._reads(feature, row)][:count]
    prepared = [row.inputs["x"] for row in decode.each(rows)]
    assert len(prepared) == count
    ours = encode.encoders["x"].encode([one for one in prepared if one is not None], False)
    if feature.modality == "audio":  # resampled once, so that only the models are compared
        media = [one.inputs["waveform"] for one in prepared if one is not None]
    else:
        media = [reference._loader(feature)(row) for row in rows]
    made = [one for one in reference._forward(feature, False)(media) if one.ndim == 2]
    return made, [one.pooled for one in ours]  # type: ignore[union-attr, misc]


@pytest.mark.parametrize(
    ("folder", "settings"),
    [
        ("pictures", (picture, "vit", POOLER)),
        ("pictures", (picture, "clip", {})),
        ("pictures", (picture, "siglip", {})),
        ("notes", (caption, "clip", {})),
        ("notes", (caption, "bert", POOLER)),
        ("notes", (caption, "clap", {})),
        ("pictures", (caption, "siglip", {})),
        ("speech", (sound, "ast", {})),
        ("speech", (sound, "clap", {})),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value[1]}-{value[0].__name__}",
)
@pytest.mark.parametrize("count", [1, 3])
def test_its_vectors_are_ours(demo_corpus: Path, models: Path, folder: str, settings: Any, count: int) -> None:
    make, kind, options = settings
    (made,), ours = _both(demo_corpus / folder, make(models, kind, **options), count)
    assert made.shape == (count, len(ours[0]))
    np.testing.assert_allclose(made, np.stack(ours), atol=1e-4 * max(1.0, float(np.abs(ours).max())))
    assert count == 1 or np.abs(made[0] - made[1]).max() > 0.01


def test_a_videos_frames_are_ours_one_by_one(tmp_path: Path, models: Path) -> None:
    (tmp_path / "in").mkdir()
    write_clip(tmp_path / "in" / "x.mp4", 2.0)
    sampling = {"kind": "uniform", "frames": 40}  # more than 32, so in two batches
    feature = {**picture(models, "clip"), "modality": "video", "tokenizer": {"kind": "frame", "sampling": sampling}}
    rows, bound_feature = _rows(config(tmp_path / "in", {"v": feature}))
    frames = reference._loader(bound_feature)(rows[0])
    assert frames.shape == (40, 48, 64, 3)
    vectors = [one for one in reference._forward(bound_feature, False)([frames]) if one.ndim == 2]
    assert [len(one) for one in vectors] == [32, 8]


@pytest.mark.parametrize("modality", ["image", "audio"])
def test_a_batch_of_gemmas_media_is_so_many_rows(demo_corpus: Path, models: Path, modality: str) -> None:
    folder, make = {"image": ("pictures", picture), "audio": ("speech", sound)}[modality]
    rows, feature = _rows(config(demo_corpus / folder, {"x": make(models, "embedding_gemma2")}))
    media = [reference._loader(feature)(row) for row in rows[:3]]
    (states,) = reference._forward(feature, False)(media)
    assert len(states) == 3


# -- the loop ----------------------------------------------------------------------------------------


def test_it_measures_what_has_a_model_and_says_why_not(demo_corpus: Path, models: Path) -> None:
    features = {"p": picture(models, "clip"), "c": caption(models), "patches": IMAGE, "frames": VIDEO}
    settings = config(demo_corpus, features)
    samples = corpus.draw(settings, 40)
    reported = reference.measure(settings, bind(settings), samples, 0.1)
    assert list(reported) == list(features)
    assert reported["patches"] == reported["frames"] == "no model, so nothing to compare with"
    ids = samples["sample_id"].to_pylist()
    for name, folders in (("p", ("pictures", "drawings")), ("c", ("pictures", "clips", "tones", "speech", "notes"))):
        one = reported[name]
        assert not isinstance(one, str)
        assert one["rows"] > 0
        assert min(one["cpu_s"], one["wall_s"]) > 0
        known = sum(sample.split("/")[0] in folders for sample in ids) / len(ids)
        assert one["share"] == pytest.approx(known, abs=0.15)  # timed captions and broken files aside


def test_a_row_has_a_share_by_what_it_holds(tmp_path: Path, models: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(3):
        Image.new("RGB", (40, 40), (80 * i, 0, 0)).save(folder / f"{i}.png")
    (folder / "words.txt").write_text("a red circle")
    features = {"p": picture(models), "c": caption(models), "s": sound(models)}
    settings, bound_features, samples = bound(config(folder, features))
    reported = reference.measure(settings, bound_features, samples, 0.0)
    assert {name: one["share"] for name, one in reported.items() if not isinstance(one, str)} == {"p": 0.75, "c": 0.25}
    assert reported["s"] == "the corpus holds none of its media"


def test_files_that_it_cannot_read_are_left_out(tmp_path: Path, models: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    Image.fromarray(noise).save(folder / "a.jpg")
    whole = (folder / "a.jpg").read_bytes()
    (folder / "b.jpg").write_bytes(whole[: len(whole) // 2])
    settings, features, samples = bound(config(folder, {"p": picture(models)}))
    reported = reference.measure(settings, features, samples, 0.0)["p"]
    assert not isinstance(reported, str)
    assert reported["rows"] == 1
    (folder / "a.jpg").write_bytes(whole[: len(whole) // 2])
    assert reference.measure(settings, features, samples, 0.0)["p"] == "it can read none of the files"


def test_subtitles_are_no_text_of_its(tmp_path: Path, models: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "s.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\none\n\n")
    (folder / "t.txt").write_text("words")
    rows, feature = _rows(config(folder, {"t": text(models / "bert")}))
    assert [reference._reads(feature, row) for row in rows] == [False, True]


def test_what_has_no_times_is_read_once_a_sample(tmp_path: Path, models: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_clip(folder / "x.mp4", 3.0, 3.0)
    (folder / "x.txt").write_text("a caption of a clip")
    Image.new("RGB", (40, 40)).save(folder / "x.png")
    features = {"p": picture(models), "c": caption(models), "v": VIDEO, "s": sound(models)}
    settings, bound_features, samples = bound(config(folder, features, window={"length_s": 1}))
    probe = ProbeStage(settings, bound_features)
    probe.setup()
    rows = probe(samples).to_pylist()
    read = {one.name: [reference._reads(one, row) for row in rows] for one in bound_features}
    once = [True, False, False]
    assert read == {"p": once, "c": once, "v": [True] * 3, "s": [True] * 3}
    reported = reference.measure(settings, bound_features, samples, 0.0)
    shares = {name: one["share"] for name, one in reported.items() if not isinstance(one, str)}
    assert shares == {"p": 1 / 3, "c": 1 / 3, "s": 1.0}


def test_parts_of_a_text_are_texts(tmp_path: Path, models: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    words = "a red circle and a blue square " * 8
    (folder / "x.txt").write_text(words)
    rows, feature = _rows(config(folder, {"t": text(models / "bert", max_length=16, overflow="windows")}))
    assert [reference._reads(feature, row) for row in rows] == [True] * len(rows)
    assert len(rows) > 3
    load = reference._loader(feature)
    assert [load(row) for row in rows] == [words[row["text_from"] : row["text_to"]] for row in rows]


def test_rows_of_nothing_have_no_share(tmp_path: Path, models: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("RGB", (40, 40)).save(folder / "a.png")
    write_clip(folder / "x.mp4", 1.0)  # it may have a picture
    settings, features, samples = bound(config(folder, {"p": picture(models)}))
    reported = reference.measure(settings, features, samples, 0.0)["p"]
    assert not isinstance(reported, str)
    assert reported["share"] == 1.0


@pytest.mark.parametrize(("kind", "size"), [("vit", 32), ("videomae", 8)])
def test_batches_of_whole_videos_are_smaller(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch, kind: str, size: int
) -> None:
    settings = picture(models, kind)
    if kind == "videomae":
        settings |= {"modality": "video", "tokenizer": {"kind": "tubelet"}}
    whole = config(tmp_path, {"x": settings})
    (feature,) = bind(whole)
    sizes: list[int] = []
    monkeypatch.setattr(reference, "_loader", lambda _: lambda row: row)
    monkeypatch.setattr(reference, "_forward", lambda *_: lambda media: sizes.append(len(media)))
    row = {"window": 0, "image_uri": "x", "video_uri": "x"}
    reported = reference._of(feature, [row] * 50, whole, 0.0)
    assert sizes == [size, size]
    assert not isinstance(reported, str)
    assert reported["rows"] == size  # the first batch does not count
