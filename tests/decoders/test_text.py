from __future__ import annotations

import contextlib
import json
import tempfile
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import SampleError
from pipeline.core.media import Span
from pipeline.decoders import DecodersConfig, open_media
from pipeline.decoders._shared.charset import decode
from pipeline.decoders._shared.html import strip_html
from pipeline.decoders.text import TextDecoderConfig, TextMedia, is_svg
from pipeline.storage.blob import Blob
from tests.decoders.texts import failure_kind, open_text


def test_newlines_and_nul_are_normalised() -> None:
    assert (
        decode(b"one\r\ntwo\rthree\n" + b"x" * 20 + b"fo\0ur", TextDecoderConfig())
        == "one\ntwo\nthree\n" + "x" * 20 + "four"
    )


@pytest.mark.parametrize("data", [b"", b" \n\t\r\n", b"\xef\xbb\xbf", "\ufeff \n".encode("utf-16-le"), b"\0\0\0"])
def test_no_words_is_empty(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(SampleError) as caught:
        open_text(tmp_path, "a.txt", data)
    assert caught.value.kind == "empty"


def test_binary_junk_is_no_text() -> None:
    assert failure_kind(bytes(range(256)) * 4) == "corrupt"
    assert failure_kind(b"a\0b\0c\0\0d" * 20) == "corrupt"
    assert failure_kind(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\1\0") == "corrupt"


def test_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match="max_bytes 10") as caught:
        open_text(tmp_path, "a.txt", "x" * 11, TextDecoderConfig(max_bytes=10))
    assert caught.value.kind == "limit"


def test_subrip_becomes_segments(tmp_path: Path) -> None:
    media = open_text(
        tmp_path,
        "a.srt",
        "\ufeff1\r\n00:00:01,500 --> 00:00:02,000\r\n<i>One</i>\r\nand a half\r\n\r\n"
        "2\r\n01:00:00,000 --> 01:00:01,250 X1:1\r\nThe hour &amp; more\r\n",
    )
    assert media.info.spans == {"text": Span(0.0, 3601.25)}
    assert media.text(None, None).text == "One\nand a half\nThe hour & more"
    assert media.text(0.0, 2.0).text == "One\nand a half"
    assert media.text(3601.0, 3602.0).text == "The hour & more"
    assert media.text(2.0, 3600.0).text == ""  # [start, end): a segment that ends at 2.0 is over


def test_webvtt_without_notes_styles_settings_and_tags(tmp_path: Path) -> None:
    media = open_text(
        tmp_path,
        "a.vtt",
        "WEBVTT - a title\nKind: captions\n\nSTYLE\n::cue { color: red }\n\nNOTE nothing\nto see\n\n"
        "intro\n00:01.000 --> 00:02.500 line:80% align:start\n<v Fred>Hi, <b>you</b></v>\n\n"
        "00:00:02.000 --> 00:00:03.000\n- two\n- lines\n",
    )
    assert media.text(None, None).text == "Hi, you\n- two\n- lines"
    assert media.info.spans == {"text": Span(0.0, 3.0)}
    assert media.text(2.1, 2.2).text == "Hi, you\n- two\n- lines"
    assert media.text(2.5, 9.0).text == "- two\n- lines"


def test_subtitles_without_a_cue_are_empty(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match="empty"):
        open_text(tmp_path, "a.vtt", "WEBVTT\n\nNOTE nothing\n")


@pytest.mark.parametrize("wrapped", [True, False])
def test_json_segments(tmp_path: Path, wrapped: bool) -> None:
    items = [{"start": 2, "end": 3.5, "text": " b "}, {"start": "0.5", "end": 1, "text": "a", "speaker": "x"}]
    media = open_text(tmp_path, "a.json", json.dumps({"segments": items} if wrapped else items))
    assert media.info.spans == {"text": Span(0.0, 3.5)}
    assert (media.text(None, None).text, media.text(1.0, 2.0).text, media.text(0.0, 1.0).text) == ("a\nb", "", "a")


def test_other_json_and_tables_are_plain_text(tmp_path: Path) -> None:
    for name, content in {
        "a.json": '{"a": 1}',
        "b.json": "[1, 2]",
        "c.csv": "a,b\n1,2\n",
        "d.md": "# <b>x</b>",
    }.items():
        media = open_text(tmp_path, name, content)
        assert media.info.spans == {"text": None}
        assert media.text(0.0, 1.0).text == content


@pytest.mark.parametrize("item", ['{"start": "x", "end": 1, "text": "a"}', '{"start": null, "end": 1, "text": "a"}'])
def test_a_segment_without_a_time_is_corrupt(tmp_path: Path, item: str) -> None:
    with pytest.raises(SampleError, match="corrupt"):
        open_text(tmp_path, "a.json", f"[{item}]")


def test_html_is_stripped_or_kept(tmp_path: Path) -> None:
    page = (
        "<!DOCTYPE html><html><head><title>T</title><style>p{}</style><script>if (a<b) x()</script></head>"
        "<body><p>One&nbsp;<b>two</b>&amp;three</p><p>four<br>five</p><ul><li>six</ul></body></html>"
    )
    assert strip_html(page).split("\n") == ["T", "One two&three", "four", "five", "six"]
    assert open_text(tmp_path, "a.html", page).text(None, None).text.startswith("T\nOne")
    assert open_text(tmp_path, "noname", page).text(None, None).text.startswith("T\nOne")
    assert open_text(tmp_path, "a.html", page, TextDecoderConfig(html="keep")).text(None, None).text == page
    with pytest.raises(SampleError, match="empty"):
        open_text(tmp_path, "b.html", "<html><script>only()</script></html>")


class _Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def handle_data(self, data: str) -> None:
        self.words += data.split()


def test_real_pages_lose_no_word(data: Path) -> None:
    pages = sorted((data / "text").glob("*.html"))
    assert len(pages) > 50
    for path in pages:
        reference = _Words()
        reference.feed(path.read_text("utf-8"))
        words = TextMedia(Blob(str(path)), TextDecoderConfig()).text(None, None).text.split()
        assert "".join(words) == "".join(reference.words), path.name


def test_real_subtitles_have_as_many_segments_as_arrows(data: Path) -> None:
    files = [*(data / "text").glob("*.vtt"), *(data / "text").glob("*.srt")]
    assert len(files) >= 6
    for path in files:
        media = TextMedia(Blob(str(path)), TextDecoderConfig())
        assert media.segments is not None
        blocks = path.read_text("utf-8-sig").replace("\r\n", "\n").split("\n\n")
        worded = [b for b in blocks if "-->" in b and b.split("-->")[1].split("\n", 1)[1:] not in ([], [""])]
        assert len(media.segments) == len(worded), path.name
        assert all("-->" not in s.text and "<" not in s.text for s in media.segments)


def test_bad_texts_are_words_or_a_reason(data: Path) -> None:
    expected = {
        "dv_broken_lines.jsonl": None,
        "dv_crlf.txt": None,
        "dv_empty.txt": "empty",
        "dv_invalid_utf8.txt": "encoding",
        "dv_long_line.txt": None,
        "dv_nul_bytes.txt": None,
        "dv_utf16_bom.txt": None,
        "dv_utf8_bom.txt": None,
        "dv_whitespace.txt": "empty",
    }
    found: dict[str, str | None] = {}
    for name in expected:
        try:
            text = TextMedia(Blob(str(data / "bad" / name)), TextDecoderConfig()).text(None, None).text
            assert "\0" not in text
            assert "\r" not in text
            assert "\ufeff" not in text
            found[name] = None
        except SampleError as error:
            found[name] = error.kind
    assert found == expected
    twins = [
        TextMedia(Blob(str(data / "bad" / f"dv_{n}.txt")), TextDecoderConfig()).full_text
        for n in ("utf16_bom", "utf8_bom")
    ]
    assert twins[0] == twins[1]


@pytest.mark.parametrize(
    "page",
    [
        "<html>" + "<!--" * 100_000,
        "<html>" + "<a " * 100_000,
        "<html>" + '<a b="' * 100_000,
        "<html>" + "<script>" * 100_000,
        "<html>" + "<![" * 100_000,
        "<html>" + "</" * 100_000,
        "<html>" + "&" * 100_000,
    ],
)
def test_hostile_html_takes_linear_time(page: str) -> None:
    started = time.process_time()
    strip_html(page)
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ('<p title="a > b">one</p>', "one"),
        ("<p>a < b and c > d</p>", "a < b and c > d"),
        ("a<!-- no > no -->b", "ab"),
        ("one<![foo[x]]>two", "onetwo"),
        ("<?php no ?>words", "words"),
        ("<SCRIPT>no</p></Script>yes", "yes"),
        ("<pre>x</pre><link a=b>y", "xy"),
        ("it's <b>5 o'clock</b>", "it's 5 o'clock"),
        ("never <!-- closed", "never"),
    ],
)
def test_html_by_hand(page: str, words: str) -> None:
    assert strip_html(page) == words


def test_no_words_of_a_subtitle_are_lost(tmp_path: Path) -> None:
    words = "1\n00:00:01,000 --> 00:00:02,000\nFirst\n\nSecond line\n\n2\n00:00:03,000 --> 00:00:03,000\nZero long\n\n"
    words += "3\n00:00:04,000 --> 00:00:05,000\n<i>a < b</i> and c > d\n"
    media = open_text(tmp_path, "a.srt", words)
    assert [one.text for one in media.segments or ()] == ["First\nSecond line", "Zero long", "a < b and c > d"]
    assert media.text(3.0, 4.0).text == "Zero long"


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 30)), min_size=1, max_size=20), st.data())
@settings(deadline=None, max_examples=200)
def test_a_window_s_words_are_those_of_all_cues_that_overlap_it(
    cues: list[tuple[int, int]], data: st.DataObject
) -> None:
    """In any order, nested or consecutive."""
    said = [{"start": start, "end": start + more, "text": f"w{i}"} for i, (start, more) in enumerate(cues)]
    with tempfile.TemporaryDirectory() as folder:
        media = open_text(Path(folder), "a.json", json.dumps(said))
    start = data.draw(st.integers(0, 80))
    end = start + data.draw(st.integers(1, 30))
    ordered = sorted(said, key=lambda cue: float(cue["start"]))  # type: ignore[arg-type]
    over = [str(cue["text"]) for cue in ordered if cue["start"] < end and cue["end"] > start]  # type: ignore[operator]
    assert media.text(start, end).text == "\n".join(over)


def test_windows_of_many_cues_below_a_long_one_are_found_at_once(tmp_path: Path) -> None:
    """With a linear search, a million cues took a tenth of a second for each of a hundred thousand windows."""
    said = [{"start": 0, "end": 10**6, "text": "long"}]
    said += [{"start": i / 10, "end": i / 10 + 0.05, "text": str(i)} for i in range(500_000)]
    media = open_text(tmp_path, "a.json", json.dumps(said))
    started = time.process_time()
    found = [media.text(float(at), at + 0.1).text for at in range(40_000, 40_100)]
    assert time.process_time() - started < 1
    assert found[7] == f"long\n{40_007 * 10}"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.html", "<html>words &#" + "9" * 5000 + "; words"),
        ("a.html", "<html>words <b>&#" + "9" * 5000),
        ("a.srt", "1\n00:00:01,000 --> 00:00:02,000\n&#" + "9" * 5000 + ";\n"),
        ("a.vtt", "WEBVTT\n\n00:01.000 --> 00:02.000\n&#" + "9" * 5000),
    ],
)
def test_a_reference_to_no_character_is_corrupt(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(SampleError, match="corrupt: a character reference that is no character") as caught:
        open_text(tmp_path, name, content)
    assert len(str(caught.value)) < 200
    assert open_text(tmp_path, name, content.replace("9" * 5000, "x41")).full_text.count("A") == 1


def test_half_a_character_in_a_segment_is_replaced(tmp_path: Path) -> None:
    media = open_text(tmp_path, "a.json", r'[{"start": 0, "end": 1, "text": "a\ud83d \ud83d\ude00 b"}]')
    assert media.full_text.encode().decode() == "a\ufffd \U0001f600 b"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", '[{"start": 0, "end": ' + "[" * 500 + "]" * 500 + ', "text": "x"}]'),
        ("a.json", '[{"start": 0, "end": 1, "text": ' + "[" * 900 + "]" * 900 + "}]"),
        ("a.json", '[{"start": 0, "end": ' + "9" * 5000 + ', "text": "x"}]'),
        ("a.json", '[{"start": NaN, "end": Infinity, "text": "x"}]'),
        ("a.json", "[" * 100_000),
        ("a.json", '[{"start": 0, "end": 1' + "0" * 400 + ', "text": "x"}]'),
        ("a.html", "<html><![foo[ words ]]> more"),
    ],
)
def test_nothing_but_sample_errors_escapes(tmp_path: Path, name: str, content: str) -> None:
    with contextlib.suppress(SampleError):
        assert open_text(tmp_path, name, content).full_text


@pytest.mark.parametrize(
    "source",
    [
        '<svg xmlns="http://www.w3.org/2000/svg"><text>words</text></svg>',
        '<?xml version="1.0"?>\n<!-- by hand -->\n<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "x">\n<svg/>',
        "\ufeff\n<?xml version='1.0'?><?xml-stylesheet href='a.css'?><!-- a --><!-- b > --><svg:svg>words</svg:svg>",
    ],
)
@pytest.mark.parametrize("suffix", [".svg", ".xml", ".txt"])
def test_svg_is_a_drawing(tmp_path: Path, source: str, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_text(source)
    for hint in (None, "text", "image"):
        with pytest.raises(SampleError, match="SVG" if hint != "image" else None) as caught:
            open_media(Blob(str(path)), hint, DecodersConfig())
        assert caught.value.kind == "unsupported"
    kept = DecodersConfig(text=TextDecoderConfig(svg="keep"))
    with open_media(Blob(str(path)), "text", kept) as media:
        assert media.text(None, None).text == source.removeprefix("\ufeff")


def test_prose_about_svg_is_text(tmp_path: Path) -> None:
    for words in ("<svgs> are no element", "The <svg> element", "<!-- <svg> -->"):
        assert open_text(tmp_path, "a.xml", words).full_text == words


def test_looking_for_svg_takes_linear_time() -> None:
    for text in (
        "<!--" * 500_000,
        "<?" * 500_000,
        "<!-- -->" * 200_000,
        " " * 1_000_000 + "<",
        "<!--" + "a" * 4_000_000,
    ):
        started = time.process_time()
        assert not is_svg(text)
        assert time.process_time() - started < 1.0
