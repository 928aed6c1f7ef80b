"""FFmpeg follows no name that it finds inside a file, and what it only guesses is refused."""

from __future__ import annotations

import io
import socket
from fractions import Fraction
from pathlib import Path

import av
import pytest

from pipeline.core.errors import SampleError
from pipeline.decoders._shared import demuxer
from pipeline.decoders._shared.container import Container
from pipeline.decoders._shared.demuxer import check_format, decoding, open_av
from pipeline.storage.blob import Blob
from tests.decoders._shared.test_not_media import _jpegs
from tests.decoders.reference import opened, write_numbered


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{folder}/a.ts\n#EXT-X-ENDLIST\n"),
        ("list.mp4", "ffconcat version 1.0\nfile a.ts\n"),
    ],
)
def test_a_file_that_names_other_files_is_refused(tmp_path: Path, name: str, content: str) -> None:
    write_numbered(tmp_path / "a.ts", [i * 3600 for i in range(20)], Fraction(1, 90000))
    path = tmp_path / name
    path.write_text(content.format(folder=tmp_path))
    with opened(path) as raw:
        assert len(list(raw.decode(video=0))) == 20  # FFmpeg itself would follow it
    with pytest.raises(SampleError, match="a list of other files") as caught:
        Container(Blob(str(path))).spans()
    assert caught.value.kind == "unsupported"


def test_nothing_is_opened_by_a_name_from_inside_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a list let through as a format, its files still could not be opened."""
    write_numbered(tmp_path / "a.ts", [i * 3600 for i in range(20)], Fraction(1, 90000))
    path = tmp_path / "list.m3u8"
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{tmp_path}/a.ts\n#EXT-X-ENDLIST\n")
    assert set(demuxer._options()["format_whitelist"].split(",")).isdisjoint(demuxer._LISTS)
    open_options = {"protocol_whitelist": demuxer._options()["protocol_whitelist"]}
    monkeypatch.setattr(demuxer, "_options", lambda: open_options)
    with path.open("rb") as file, pytest.raises(av.FFmpegError, match="Error when loading first segment"):
        open_av(file)


def test_no_file_makes_us_call_an_address(tmp_path: Path) -> None:
    path = tmp_path / "list.m3u8"
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.3)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{address}\n#EXT-X-ENDLIST\n")
        with pytest.raises(SampleError):
            Container(Blob(str(path))).spans()
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize("error", [UnicodeDecodeError("utf-8", b"x", 0, 1, "no"), TypeError("no"), SyntaxError("no")])
def test_whatever_a_decoder_raises_is_a_sample_error(error: Exception) -> None:
    with pytest.raises(SampleError, match=type(error).__name__) as caught, decoding():
        raise error
    assert caught.value.kind == "corrupt"


def test_a_guess_is_refused_each_time_and_levels_of_logging_stay(capfd: pytest.CaptureFixture[str]) -> None:
    """FFmpeg warns of a guess once unless it is asked to repeat itself."""
    data = bytes(700).join([b"no known head", *_jpegs(4)])
    av.logging.set_level(av.logging.PANIC)
    skips = av.logging.get_skip_repeated()
    for _ in range(3):
        file = io.BytesIO(data)
        with pytest.raises(SampleError, match=r"FFmpeg guesses mjpeg, with a score of \d+ of 100"):
            check_format(file)
    assert (av.logging.get_level(), av.logging.get_skip_repeated()) == (av.logging.PANIC, skips)
    assert capfd.readouterr() == ("", "")


def test_a_format_that_is_sure_passes_and_the_file_is_at_its_start(tmp_path: Path) -> None:
    write_numbered(tmp_path / "a.mkv", range(0, 400, 40))
    with (tmp_path / "a.mkv").open("rb") as file:
        check_format(file)
        assert file.tell() == 0


def test_what_ffmpeg_does_not_read_at_all(tmp_path: Path) -> None:
    with pytest.raises(SampleError) as caught:
        check_format(io.BytesIO(b"no media " * 100))
    assert caught.value.kind == "corrupt"
