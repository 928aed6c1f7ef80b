from __future__ import annotations

import csv
import itertools
import json
import os
import tempfile
from pathlib import Path

import fsspec
import numpy as np
import PIL.Image
import pytest
import soundfile

from pipeline.core.errors import FAILURE_KINDS, SampleError
from pipeline.core.media import Modality, Span, UniformSampling
from pipeline.decoders import DecodersConfig, OpenMedia, open_media, video_decord, video_pyav
from pipeline.storage.blob import Blob
from pipeline.storage.urls import local_uri
from tests.decoders.reference import number_in, sound_of, write_numbered
from tests.decoders.video_checks import BACKENDS, NEEDS_DECORD

HINTS: dict[str, Modality] = {"images": "image", "videos": "video", "audio": "audio", "text": "text"}
CONFIG = DecodersConfig()


def _open(path: Path | str, hint: Modality | None = None, config: DecodersConfig = CONFIG) -> OpenMedia:
    return open_media(Blob(str(path)), hint, config)


def _decoded(media: OpenMedia) -> dict[Modality, object]:
    """Everything that a file holds, decoded: text, pixels, eight frames of each two seconds, all sound."""
    found: dict[Modality, object] = {}
    for modality, span in media.info.spans.items():
        if modality == "text":
            found[modality] = media.text(None, None).text
        elif modality == "image":
            found[modality] = media.image().pixels
        else:
            assert span is not None
            assert 0.0 <= span.start_s < span.end_s
            cuts = [*np.arange(0.0, span.end_s, 2.0), span.end_s]
            windows = [(a, b) for a, b in itertools.pairwise(cuts) if span.overlaps(a, b)]
            if modality == "video":
                found[modality] = [media.frames(UniformSampling(2), a, b) for a, b in windows[:4]]
            else:
                found[modality] = sum(len(media.waveform(16000, a, b).samples) for a, b in windows) / 16000
    return found


def _failure(path: Path | str, hint: Modality | None = None, config: DecodersConfig = CONFIG) -> SampleError:
    with pytest.raises(SampleError) as caught:
        _open(path, hint, config)
    return caught.value


def test_the_content_decides_and_the_hint_breaks_ties(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "picture.txt").write_bytes((tmp_path / "a.png").read_bytes())
    for hint in (None, "text", "audio", "video", "image"):
        assert set(_open(tmp_path / "picture.txt", hint).info.spans) == {"image"}  # type: ignore[arg-type]
    (tmp_path / "words.mp4").write_text("The free software, in so many words. " * 20)
    assert set(_open(tmp_path / "words.mp4", "text").info.spans) == {"text"}
    assert set(_open(tmp_path / "words.mp4", None).info.spans) == {"text"}
    assert _failure(tmp_path / "words.mp4", "video").kind == "unsupported"
    assert _failure(tmp_path / "words.mp4", "image").kind == "unsupported"


@pytest.mark.parametrize("hint", [None, "text", "image", "video", "audio"])
def test_empty_missing_and_unknown_files(tmp_path: Path, hint: Modality | None) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert _failure(tmp_path / "empty", hint).kind == "empty"
    assert _failure(tmp_path / "nowhere", hint).kind == "missing"
    (tmp_path / "junk").write_bytes(np.random.default_rng(3).bytes(5000))
    assert _failure(tmp_path / "junk", hint).kind == ("corrupt" if hint == "text" else "unsupported")


def test_remote_and_oddly_named_files_are_read_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "private"))
    (tmp_path / "private").mkdir()
    write_numbered(tmp_path / "a.mp4", [i * 40 for i in range(60)])
    soundfile.write(tmp_path / "a.flac", np.sin(np.arange(20000) / 7), 8000)
    PIL.Image.new("RGB", (4, 3), (1, 2, 3)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("words")
    memory = fsspec.filesystem("memory")
    for name in ("a.mp4", "a.flac", "a.png", "a.txt"):
        content = (tmp_path / name).read_bytes()
        memory.pipe_file(f"/opening/{name}", content)
        odd = os.fsencode(str(tmp_path)) + b"/caf\xe9-" + name.encode()
        Path(os.fsdecode(odd)).write_bytes(content)
        found = []
        for uri in (str(tmp_path / name), f"memory://opening/{name}", local_uri(os.fsdecode(odd))):
            with _open(uri) as media:
                found.append((media.info, _decoded(media)))
        for info, decoded in found[1:]:
            assert info == found[0][0]
            assert repr(decoded) == repr(found[0][1])
    assert list((tmp_path / "private").iterdir()) == []


@NEEDS_DECORD
def test_a_spooled_file_has_no_name_and_is_gone_after_closing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "private"))
    (tmp_path / "private").mkdir()
    write_numbered(tmp_path / "a.mp4", [i * 40 for i in range(60)])
    fsspec.filesystem("memory").pipe_file("/opening/b.mp4", (tmp_path / "a.mp4").read_bytes())
    media = _open("memory://opening/b.mp4", config=DecodersConfig(video=video_decord.Config()))
    assert list((tmp_path / "private").iterdir()) == []  # opening is cheap
    assert number_in(media.frames(UniformSampling(1), 0.0, 0.04).pixels[0]) == 0
    assert list((tmp_path / "private").iterdir()) == []
    spooled = [name for name in map(_target, os.listdir("/proc/self/fd")) if name.startswith(f"{tmp_path}/private")]
    assert len(spooled) >= 1
    media.close()
    assert not [name for name in map(_target, os.listdir("/proc/self/fd")) if name.startswith(f"{tmp_path}/private")]


def _target(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:  # of the listing itself
        return ""


@pytest.mark.parametrize("kind", BACKENDS)
def test_limits_have_a_name(kind: str, tmp_path: Path) -> None:
    write_numbered(tmp_path / "a.mp4", [i * 40 for i in range(10)])
    config = DecodersConfig(video={"kind": kind, "max_pixels": 64 * 64 - 1})  # type: ignore[arg-type]
    with _open(tmp_path / "a.mp4", None, config) as media, pytest.raises(SampleError, match="max_pixels") as caught:
        media.frames(UniformSampling(1), 0.0, 1.0)
    assert caught.value.kind == "limit"


@pytest.mark.parametrize("soundfile_first", [True, False])
def test_a_sample_rate_that_no_converter_has_is_a_limit(tmp_path: Path, soundfile_first: bool) -> None:
    soundfile.write(tmp_path / "a.wav", np.ones(5000, np.float32), 2_000_000)
    audio = {"soundfile": soundfile_first}
    with _open(tmp_path / "a.wav", None, DecodersConfig(audio=audio)) as media:  # type: ignore[arg-type]
        with pytest.raises(SampleError, match="2000000 Hz, over max_sample_rate 768000") as caught:
            media.waveform(16000, 0.0, 1.0)
        assert caught.value.kind == "limit"
    audio["max_sample_rate"] = 2_000_000
    with _open(tmp_path / "a.wav", None, DecodersConfig(audio=audio)) as media:  # type: ignore[arg-type]
        assert len(media.waveform(16000, 0.0, 1.0).samples) == 40


@pytest.mark.parametrize("end", ["1e999", "Infinity", "1e9"])
def test_time_stamps_beyond_reason_are_refused(tmp_path: Path, end: str) -> None:
    """They would be cut into windows for ever."""
    path = tmp_path / "a.json"
    path.write_text(f'[{{"start": 0, "end": {end}, "text": "a"}}]')
    assert _failure(path, "text").kind == "limit"
    assert _open(path, "text", DecodersConfig(max_seconds=2e9)) if end == "1e9" else True


def test_sound_goes_to_pyav_where_soundfile_refuses_or_the_header_lies(data: Path) -> None:
    for name in (
        "flactest__45 - no total number of samples set.flac",
        "flactest__faulty_05 - wrong total number of samples.flac",
        "flactest__uncommon_03 - decreasing number of channels.flac",
        "tinytag__id3_xxx_lang.mp3",
        "tinytag__detect_mp3_fffb.x",
        "dv_ogg_named.mp3",
        "dv_trunc.ogg",
        "dv_trunc.wav",
        "dv_streaming_size.wav",
        "tinytag__gsm_6_10.wav",
    ):
        mono, rate, _, _ = sound_of(data / "bad" / name)
        with _open(data / "bad" / name, "audio") as media:
            span = media.info.spans["audio"]
            assert span is not None
            assert span.end_s - span.start_s == pytest.approx(len(mono) / rate, abs=1e-6), name
            found = media.waveform(rate, span.start_s, span.end_s).samples
            assert len(found) == len(mono)
            assert np.abs(found - mono).max() < 2e-3, name


def test_pyav_reads_sound_files_when_told(tmp_path: Path) -> None:
    wave = np.sin(np.arange(8000) / 5).astype(np.float32) / 2
    soundfile.write(tmp_path / "a.wav", wave, 8000, subtype="FLOAT")
    with _open(tmp_path / "a.wav", "audio", DecodersConfig(audio={"soundfile": False})) as media:  # type: ignore[arg-type]
        assert media.info.spans == {"audio": Span(0.0, 1.0)}
        assert np.array_equal(media.waveform(8000, 0.0, 1.0).samples, wave)


def test_both_refusals_are_told(data: Path) -> None:
    error = _failure(data / "bad" / "dv_rate0.wav", "audio")
    assert "libsndfile: " in error.message
    assert "InvalidDataError" in error.message


QUICK = 9


def _listed(data: Path, folder: str) -> list[dict[str, str]]:
    with (data / folder / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    return rows


def _check_all(data: Path, folder: str, rows: list[dict[str, str]]) -> None:
    for row in rows:
        path = data / folder / row["path"]
        with _open(path, HINTS[folder]) as media:
            found = _decoded(media)
            assert HINTS[folder] in found, path.name
            if folder == "images":
                height, width = media.image().pixels.shape[:2]
                assert {height, width} == {int(row["height"]), int(row["width"])}, path.name


@pytest.mark.parametrize("folder", HINTS)
def test_some_real_files_open_and_decode(data: Path, folder: str) -> None:
    rows = [r for r in _listed(data, folder) if int(r["bytes"]) < 2_000_000]
    _check_all(data, folder, rows[:: max(1, len(rows) // QUICK)])


@pytest.mark.slow
@pytest.mark.parametrize("folder", HINTS)
def test_every_real_file_opens_and_decodes(data: Path, folder: str) -> None:
    _check_all(data, folder, _listed(data, folder))


AGAINST_EXPECTATION = {
    "dv_mp4_named.jpg": "decode",  # the content is a clip and decodes as one; "fail" was said of it as a picture
    "dv_nan_inf.wav": "fail",  # samples that are no numbers are refused rather than let through
    "pillow__10ct_32bit_128.tiff": "fail",  # floats from -3.1 to 3.1 are refused until the config says how to show them
}


def test_every_bad_file_gives_media_or_a_reason(data: Path) -> None:
    """Never another exception; and the manifest's expectation, but for the files above."""
    rows = _listed(data, "bad")
    assert len(rows) == 197
    outcomes = {row["path"]: _outcome(data / "bad" / row["path"], row["modality"]) for row in rows}
    for path, error in outcomes.items():
        if error is not None:
            assert error.kind in FAILURE_KINDS, path
            assert error.kind != "internal", path
            assert error.message, path
            assert "\n" not in error.message, path
    found = {path: "decode" if error is None else "fail" for path, error in outcomes.items()}
    against = {row["path"]: found[row["path"]] for row in rows if row["expect"] not in ("either", found[row["path"]])}
    assert against == AGAINST_EXPECTATION


def _outcome(path: Path, hint: str) -> SampleError | None:
    try:
        with _open(path, hint) as media:  # type: ignore[arg-type]
            _decoded(media)
    except SampleError as error:
        return error
    return None


def test_configs_are_strict_and_round_trip() -> None:
    config = DecodersConfig(video=video_pyav.Config(max_pixels=5))
    assert DecodersConfig.model_validate(json.loads(config.model_dump_json())) == config
    for wrong in (
        {"video": {"kind": "other"}},
        {"text": {"on_other": "guess"}},
        {"image": {"max_pixels": 0}},
        {"x": 1},
    ):
        with pytest.raises(ValueError, match="validation error"):
            DecodersConfig.model_validate(wrong)
