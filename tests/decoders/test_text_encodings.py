"""Encodings of texts: by their marks, by their bytes, and where no guess is made."""

import numpy as np
import pytest

from pipeline.core.errors import SampleError
from pipeline.decoders._shared.charset import decode
from pipeline.decoders.text import TextDecoderConfig
from tests.decoders.texts import failure_kind

WORDS = "Grüße, 世界 — naïve\n"


LONG = "Der Fluß führt über die Brücke. Größe zählt für Mädchen und Jungen. " * 20


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_marks_tell_the_encoding_and_are_dropped(encoding: str) -> None:
    assert decode(WORDS.encode(encoding), TextDecoderConfig()) == WORDS


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_both_byte_orders(encoding: str) -> None:
    assert decode(("\ufeff" + WORDS).encode(encoding), TextDecoderConfig()) == WORDS


def test_the_policy_for_other_encodings() -> None:
    latin = LONG.encode("latin-1")
    assert decode(latin, TextDecoderConfig(on_other="detect")) == LONG
    assert decode(latin, TextDecoderConfig(on_other="replace")) == LONG.encode("ascii", "replace").decode().replace(
        "?", "\ufffd"
    )
    assert failure_kind(latin, on_other="fail") == "encoding"
    assert failure_kind(WORDS.encode("utf-16")[:-1]) == "encoding"


SHORT = {"cp1252": ("café", "a naïve idea", "niño jugando en el parque"), "koi8-r": ("Привет",), "euc-jp": ("日本語",)}


@pytest.mark.parametrize(("encoding", "text"), [(name, text) for name, own in SHORT.items() for text in own])
def test_a_few_bytes_are_not_guessed_at(encoding: str, text: str) -> None:
    """Statistics would make other words of them."""
    assert failure_kind(text.encode(encoding)) == "encoding"
    assert decode(text.encode(encoding), TextDecoderConfig(encoding=encoding)) == text


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "El niño español mañana irá al parque. " * 10),
        ("cp1252", "L'été dernier, nous avons été à la plage où les élèves étaient déjà en vacances. " * 3),
        ("koi8-r", "Съешь ещё этих мягких французских булок, да выпей же чаю. " * 4),
        ("shift_jis", "日本語の文章はここにあります。今日は天気がいいですね。" * 3),
    ],
)
def test_long_texts_tell_their_encoding(encoding: str, text: str) -> None:
    assert decode(text.encode(encoding), TextDecoderConfig()) == text


def test_a_declared_encoding_must_fit_and_be_known() -> None:
    assert failure_kind(b"\xff\xfeoops\x81", encoding="ascii", on_other="detect") == "encoding"
    with pytest.raises(ValueError, match="found 'cp9999'; a name that Python knows"):
        TextDecoderConfig(encoding="cp9999")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    "words",
    [
        "Four words without mark",
        "Привет, мир!\nЕщё строка.",
        "Ελλάδα και κόσμος",
        "שלום עולם",
        "naïve café\tœuvre €5",
        "日本 語",
    ],
)
def test_utf16_without_a_mark_where_it_is_certain(encoding: str, words: str) -> None:
    data = words.encode(encoding)
    assert decode(data, TextDecoderConfig()) == words
    if "\x00" in data.decode("latin-1"):
        with pytest.raises(SampleError):
            decode(data, TextDecoderConfig(on_other="fail"))


@pytest.mark.parametrize(
    "data",
    [
        b"a\0b\0",  # too little
        b"a\0b\0c\0d\0e",  # half a pair
        bytes(range(1, 9)) + b"\0\0",
        np.arange(200, dtype="<i2").tobytes(),  # numbers, some of them control characters
        np.arange(0x3A0, 0x3C0, dtype="<i4").tobytes(),
        bytes(range(256)) * 4,
        np.random.default_rng(0).integers(0, 256, 4000, np.uint8).tobytes(),
    ],
)
def test_numbers_are_not_utf16(data: bytes) -> None:
    with pytest.raises(SampleError) as caught:
        decode(data, TextDecoderConfig())
    assert caught.value.kind in ("corrupt", "encoding")


@pytest.mark.parametrize("words", ["great cat", "abcdefghi", "Grüße an ", "abc"])
def test_a_nul_at_the_end_is_no_sign_of_utf16(words: str) -> None:
    for nuls in (b"\0", b"\0\0"):
        assert (
            decode(words.encode() + b" 0123456789" * 3 + nuls, TextDecoderConfig()).strip() == words + " 0123456789" * 3
        )
