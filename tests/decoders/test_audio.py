from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from torchaudio.functional import resample

from pipeline.core.errors import SampleError
from pipeline.decoders._shared.container import Container
from pipeline.decoders._shared.container_samples import ContainerSamples
from pipeline.decoders._shared.samples import Samples, SoundfileSamples
from pipeline.decoders.audio import waveform
from pipeline.storage.blob import Blob
from tests.decoders.reference import opened_for_writing, sound_of

RATES = [8000, 16000, 22050, 48000]
TILE = 1e-4
SECONDS = 5.3


def _wave(rate: int, seconds: float = SECONDS, seed: int = 0) -> np.ndarray:
    """Noise and a sweep: every sample differs from its neighbours."""
    n = round(rate * seconds)
    t = np.arange(n) / rate
    noise = np.random.default_rng(seed).normal(0, 0.05, n)
    return (0.5 * np.sin(2 * np.pi * (200 + 300 * t) * t) + noise).astype(np.float32)


def _container(path: Path) -> ContainerSamples:
    container = Container(Blob(str(path)))
    return ContainerSamples(container, container.spans()["audio"])


def _soundfile(path: Path) -> SoundfileSamples:
    return SoundfileSamples(Blob(str(path)))


def _at(wave: np.ndarray, rate: int, target: int) -> np.ndarray:
    return resample(torch.from_numpy(wave.astype(np.float32)), rate, target).numpy()


def _check_tiles(open_: Callable[[], Samples], whole: np.ndarray, target: int, cuts: list[float]) -> None:
    """Windows one after the other, then in any order, then each from a reader of its own: always the whole."""
    origin = open_().span.start_s
    windows = [(origin + a, origin + b) for a, b in itertools.pairwise(cuts)]
    reader = open_()
    for order in (range(len(windows)), np.random.default_rng(1).permutation(len(windows))):
        found = {int(i): waveform(reader, target, *windows[i]) for i in order}
        _check_joined([found[i] for i in range(len(windows))], whole, target, origin, cuts)
    _check_joined([waveform(open_(), target, *w) for w in windows], whole, target, origin, cuts)


def _check_joined(pieces: list, whole: np.ndarray, target: int, origin: float, cuts: list[float]) -> None:
    first = int(np.ceil(cuts[0] * target - 1e-6))
    joined = np.concatenate([piece.samples for piece in pieces])
    wanted = whole[first : int(np.ceil(cuts[-1] * target - 1e-6))]
    assert len(joined) == len(wanted)
    assert np.abs(joined - wanted).max() <= TILE
    for piece, start in zip(pieces, cuts, strict=False):
        assert piece.sample_rate == target
        assert piece.samples.dtype == np.float32
        assert -1e-9 <= piece.start_s - origin - start < 1 / target + 1e-6


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("target", RATES)
def test_windows_join_to_the_file_resampled_at_once(tmp_path: Path, rate: int, target: int) -> None:
    path = tmp_path / "a.wav"
    wave = _wave(rate)
    soundfile.write(path, wave, rate, subtype="FLOAT")
    cuts = [0.0, 0.4, 1.0, 1.37, 2.000013, 3.3333, 5.0, 9.0]
    for open_ in (lambda: _soundfile(path), lambda: _container(path)):
        _check_tiles(open_, _at(wave, rate, target), target, cuts)


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".mp4", "aac"), (".mp4", "libmp3lame"), (".webm", "libopus"), (".mkv", "aac")]
)
def test_windows_of_compressed_tracks_join(tmp_path: Path, suffix: str, codec: str) -> None:
    """Far jumps seek; what they give is what decoding in order gives."""
    path = tmp_path / f"a{suffix}"
    _write_track(path, _wave(48000, 40.0), 48000, codec)
    whole, rate, _, _ = sound_of(path)
    _check_tiles(lambda: _container(path), _at(whole, rate, 16000), 16000, [0.0, 2.0, 4.0, 4.5, 30.0, 30.7, 35.0])


@pytest.mark.parametrize(("suffix", "options"), [(".ogg", {}), (".mp3", {}), (".flac", {})])
def test_windows_of_compressed_files_join(tmp_path: Path, suffix: str, options: dict[str, str]) -> None:
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, _wave(44100, 20.0), 44100, **options)
    whole, _ = soundfile.read(path, dtype="float32")
    _check_tiles(lambda: _soundfile(path), _at(whole, 44100, 16000), 16000, [0.0, 2.0, 3.7, 15.1, 19.0])


@pytest.mark.parametrize(
    ("subtype", "tolerance"),
    [("PCM_U8", 1 / 100), ("PCM_16", 1e-4), ("PCM_24", 1e-6), ("PCM_32", 1e-6), ("DOUBLE", 1e-6)],
)
@pytest.mark.parametrize("channels", [1, 2, 6, 16])
def test_any_sample_format_and_channel_count_to_their_mean(
    tmp_path: Path, subtype: str, tolerance: float, channels: int
) -> None:
    path = tmp_path / "a.wav"
    tracks = np.stack([_wave(16000, 0.5, seed) * 0.9 for seed in range(channels)], axis=1)
    soundfile.write(path, tracks, 16000, subtype=subtype)
    for reader in (_soundfile(path), _container(path)):
        found = waveform(reader, 16000, 0.0, 1.0)
        assert found.samples.shape == (8000,)
        assert np.abs(found.samples - tracks.mean(axis=1)).max() <= tolerance


def test_a_window_holds_the_samples_from_its_start_up_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.arange(1000, dtype=np.float32) / 1000, 100, subtype="FLOAT")
    reader = _soundfile(path)
    piece = waveform(reader, 100, 0.995, 2.0)
    assert piece.start_s == pytest.approx(1.0)
    assert np.allclose(piece.samples, np.arange(100, 200) / 1000)
    assert np.allclose(waveform(reader, 100, 2.0, 2.005).samples, [0.2])
    with pytest.raises(SampleError, match="empty"):
        waveform(reader, 100, 2.001, 2.009)
    with pytest.raises(SampleError, match="empty"):
        waveform(reader, 100, 20.0, 21.0)
    assert len(waveform(reader, 100, 9.5, 99.0).samples) == 50


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_fail_their_window_only(tmp_path: Path, value: float) -> None:
    wave = _wave(16000)
    wave[40000] = value
    path = tmp_path / "a.wav"
    soundfile.write(path, wave, 16000, subtype="FLOAT")
    for open_ in (_soundfile, _container):
        reader: Samples = open_(path)
        with pytest.raises(SampleError, match="not finite") as caught:
            waveform(reader, 8000, 2.0, 3.0)
        assert caught.value.kind == "corrupt"
        assert len(waveform(reader, 8000, 3.0, 4.0).samples) == 8000


def test_a_real_vorbis_track_joins_across_a_seek(data: Path) -> None:
    path = data / "videos" / "moviepy__big_buck_bunny_0_30.webm"
    whole, rate, _, _ = sound_of(path)
    _check_tiles(lambda: _container(path), whole.astype(np.float32), rate, [0.0, 1.0, 13.0, 14.5, 25.0, 26.0])


def test_silence_where_the_stream_has_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    wave = _wave(16000, 4.0)
    _write_track(path, wave, 16000, "pcm_s16le", gap_at=1.0, gap_s=0.5)
    reader = _container(path)
    assert reader.span.end_s == pytest.approx(4.5, abs=0.07)
    found = np.concatenate([waveform(reader, 16000, a, a + 1.5).samples for a in (0.0, 1.5, 3.0)])
    edge = round(1.0 * 16000 / 1000) * 1000
    assert np.abs(found[:edge] - wave[:edge]).max() < 1e-3
    assert not found[edge : edge + 8000].any()
    rest = found[edge + 8000 :]
    assert np.abs(rest - wave[edge : edge + len(rest)]).max() < 1e-3


def test_headers_that_promise_too_much(tmp_path: Path, data: Path) -> None:
    for name in ("tinytag__cut_off_titles.mp3", "tinytag__detect_mp3_fffb.x"):
        with pytest.raises(SampleError, match=r"promises|lost"):
            _soundfile(data / "bad" / name)
    with pytest.raises(SampleError, match="libsndfile: Format not recognised"):  # by content; its name says MP3
        _soundfile(data / "bad" / "tinytag__id3_xxx_lang.mp3")
    with pytest.raises(SampleError, match="empty"):
        _soundfile(data / "bad" / "dv_zero_samples.wav")


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_damaged_packets_are_silence_and_what_follows_keeps_its_time(tmp_path: Path, suffix: str) -> None:
    """Lossless sound with four holes: the first packet, one alone, a run of 1.5 s, the last ones."""
    path, wave = tmp_path / f"a{suffix}", _wave(16000, 30.0)
    _write_track(path, wave, 16000, "flac")
    whole, rate, _, _ = sound_of(path)
    holes = _damage(path, [(0.0, 0.1), (3.0, 3.1), (20.0, 21.5), (29.5, 99.0)])
    expected = whole.copy()
    for begin, end in holes:
        expected[begin:end] = 0
    for order in ([0.0, 3.0, 13.0, 19.0, 22.0], [22.0, 0.0, 13.0, 3.0, 19.0]):
        reader = _container(path)
        for start in order:
            found = waveform(reader, rate, start, start + 2.0).samples
            assert np.array_equal(found, expected[round(start * rate) :][: 2 * rate]), start
    for start, end in ((20.0, 21.0), (19.6, 21.8), (29.6, 30.0), (29.2, 30.0)):
        with pytest.raises(SampleError, match="nvalid") as caught:
            waveform(_container(path), rate, start, end)
        assert caught.value.kind == "corrupt"
    kept = waveform(_container(path), rate, 28.0, 30.0).samples
    assert np.array_equal(kept, expected[28 * rate :][: len(kept)])
    assert len(kept) == pytest.approx(1.5 * rate, abs=0.3 * rate)


def test_a_track_without_one_good_packet_says_why(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    _write_track(path, _wave(16000, 2.0), 16000, "flac")
    _damage(path, [(0.0, 99.0)])
    reader = _container(path)
    for _ in range(2):
        with pytest.raises(SampleError, match="nvalid") as caught:
            waveform(reader, 16000, 0.0, 1.0)
        assert caught.value.kind == "corrupt"


def test_flipped_bytes_cost_their_packets_only(data: Path) -> None:
    """Three packets of 21 ms; the rest is there."""
    reader = _container(data / "bad" / "dv_flipped.mp4")
    pieces = [waveform(reader, 48000, start, start + 1.0).samples for start in (0.0, 1.0, 2.0, 3.0, 4.0)]
    assert [len(piece) for piece in pieces] == [48000] * 5


def test_a_far_jump_in_a_stream_without_index_keeps_little(tmp_path: Path) -> None:
    path = tmp_path / "a.aac"
    wave = np.tile(_wave(8000, 10.0), 30)
    _write_track(path, wave, 8000, "aac")
    whole, rate, _, _ = sound_of(path)
    reader = _container(path)
    assert reader.container.guesses_times
    found = waveform(reader, rate, 290.0, 291.0).samples
    assert np.abs(found - whole[290 * rate :][:rate]).max() < 1e-6
    assert sum(map(len, reader.kept)) < 4 * rate


def _damage(path: Path, spans: list[tuple[float, float]]) -> list[tuple[int, int]]:
    """Zeros over the packets that begin in ``spans`` (seconds); the samples ``[start, stop)`` of each run."""
    with av.open(str(path)) as container:
        rate = container.streams.audio[0].rate
        packets = [p for p in container.demux(audio=0) if p.size]
        content = bytearray(path.read_bytes())
        holes = []
        for begin, end in spans:
            hit = [p for p in packets if begin <= float(p.pts * p.time_base) < end]
            for packet in hit:
                at = content.find(bytes(packet), packet.pos)
                content[at : at + packet.size] = bytes(packet.size)
            frames = [round(float(p.pts * p.time_base) * rate) // 1152 * 1152 for p in hit]
            holes.append((round(frames[0]), round(frames[-1]) + 1152))
    path.write_bytes(content)
    return holes


def test_a_rate_that_changes_is_refused(data: Path) -> None:
    reader = _container(data / "bad" / "flactest__uncommon_01 - changing samplerate.flac")
    waveform(reader, 16000, 0.0, 1.0)
    with pytest.raises(SampleError, match="from 32000 to") as caught:
        waveform(reader, 16000, 0.0, 15.0)
    assert caught.value.kind == "unsupported"


@pytest.mark.parametrize(
    "name", ["mdn__flower.webm", "mdn__friday.mp4", "torchcodec__sine_stereo_mp2.mpg", "exo__sample.avi"]
)
def test_real_sound_tracks_are_what_pyav_decodes(data: Path, name: str) -> None:
    path = data / "videos" / name
    whole, rate, first, longest = sound_of(path)
    reader = _container(path)
    assert reader.span.start_s == pytest.approx(first, abs=1e-6)
    assert reader.span.end_s - first == pytest.approx(len(whole) / rate, abs=longest)
    pieces = [waveform(reader, rate, float(a), float(a) + 1.0).samples for a in np.arange(0.0, reader.span.end_s, 1.0)]
    joined = np.concatenate(pieces)
    assert abs(len(joined) - len(whole)) <= longest * rate
    common = min(len(joined), len(whole))
    assert np.abs(joined[:common] - whole[:common]).max() < 1e-6


def _write_track(path: Path, wave: np.ndarray, rate: int, codec: str, gap_at: float = 1e9, gap_s: float = 0.0) -> None:
    with opened_for_writing(path) as out:
        stream = out.add_stream(codec, rate=rate, layout="mono")
        size = stream.codec_context.frame_size or 1000
        pcm = codec.startswith("pcm")
        for at in range(0, len(wave), size):
            piece = wave[None, at : at + size]
            data = (piece * 32767).astype(np.int16) if pcm else piece
            frame = av.AudioFrame.from_ndarray(data, format="s16" if pcm else "fltp", layout="mono")
            frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = at + (round(gap_s * rate) if at >= gap_at * rate else 0)
            for part in [frame] if pcm else _in_format(frame, stream):
                out.mux(stream.encode(part))
        out.mux(stream.encode())


def _in_format(frame: av.AudioFrame, stream: av.AudioStream) -> list[av.AudioFrame]:
    if stream.codec_context.format.name == frame.format.name:
        return [frame]
    resampler = av.AudioResampler(format=stream.codec_context.format.name, layout="mono", rate=frame.sample_rate)
    return resampler.resample(frame)
