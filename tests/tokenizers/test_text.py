"""Token ids equal the checkpoint's own tokenizer; texts that are cut lose nothing and fit."""

from __future__ import annotations

import json
import pickle
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.core.errors import ConfigError, SampleError
from pipeline.core.media import Text, TextRequest
from pipeline.tokenizers.text import TextTokenizer, TextTokenizerConfig
from tests.encoders.sound_fixtures import changed, checkpoint, copy, texts

NAMES = ("bert", "roberta", "xlm_roberta", "modernbert", "mpnet", "clap")


@cache
def _tokenizer(name: str, **options: Any) -> TextTokenizer:
    tokenizer = TextTokenizer(TextTokenizerConfig(kind="text", **options), checkpoint(name))
    tokenizer.check("features.x.tokenizer")
    tokenizer.setup()
    return tokenizer


@cache
def _reference(name: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint(name).path)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("max_length", "prompt"), [(None, ""), (16, ""), (40, "query: ")])
def test_ids_equal_the_checkpoints_own(name: str, max_length: int | None, prompt: str, data: Path) -> None:
    tokenizer = _tokenizer(name, max_length=max_length, prompt=prompt)
    assert tokenizer.request() == TextRequest()
    for text in texts(data):
        prepared = tokenizer.tokenize(Text(text))
        expected = _reference(name)(prompt + text, truncation=True, max_length=max_length or 512)["input_ids"]
        ids, special = prepared.inputs["input_ids"], prepared.inputs["special_mask"]
        np.testing.assert_array_equal(ids, expected)
        assert (ids.dtype, special.dtype, special.shape) == (np.int32, np.uint8, ids.shape)
        assert list(np.flatnonzero(special)) == [0, len(ids) - 1]
        assert prepared.times_s is None


@pytest.mark.parametrize("text", ["", "  \n\t ", "​", "\x00\x01"])
def test_a_text_without_tokens_is_empty(text: str) -> None:
    for prompt in ("", "query: "):
        with pytest.raises(SampleError) as caught:
            _tokenizer("bert", prompt=prompt).tokenize(Text(text))
        assert caught.value.kind == "empty"


def test_half_a_surrogate_pair_is_a_failure_of_the_sample() -> None:
    """JSON can spell one, and the tokenizers library has no word for it."""
    for work in (lambda text: _tokenizer("bert").tokenize(Text(text)), _tokenizer("bert").cut):
        with pytest.raises(SampleError) as caught:
            work("a red \ud83d circle")
        assert caught.value.kind == "encoding"
    _tokenizer("bert").tokenize(Text("a red \U0001f99c circle"))


@pytest.mark.parametrize(
    ("name", "positions"), [("bert", 512), ("roberta", 512), ("xlm_roberta", 512), ("mpnet", 512), ("clap", 512)]
)
def test_the_longest_row_is_what_the_model_has_positions_for(name: str, positions: int, tmp_path: Path) -> None:
    assert _tokenizer(name).max_length == positions
    unbounded = changed(name, tmp_path, "tokenizer_config.json", model_max_length=10**30)
    tokenizer = TextTokenizer(TextTokenizerConfig(kind="text"), unbounded)
    tokenizer.setup()
    assert tokenizer.max_length == positions


def test_the_tokenizers_own_limit_counts(tmp_path: Path) -> None:
    tokenizer = TextTokenizer(
        TextTokenizerConfig(kind="text"), changed("bert", tmp_path, "tokenizer_config.json", model_max_length=20)
    )
    tokenizer.setup()
    assert tokenizer.max_length == 20


def test_a_tokenizer_alone_serves_an_encoder_without_checkpoint(tmp_path: Path) -> None:
    copy("bert", tmp_path, without=["model.safetensors", "config.json"])
    tokenizer = TextTokenizer(TextTokenizerConfig(kind="text", checkpoint=str(tmp_path)), None)
    tokenizer.check("features.x.tokenizer")
    tokenizer = pickle.loads(pickle.dumps(TextTokenizer(tokenizer.config, None)))
    tokenizer.setup()
    ids = tokenizer.tokenize(Text("a red circle")).inputs["input_ids"]
    np.testing.assert_array_equal(ids, _reference("bert")("a red circle")["input_ids"])


def _check(name: str | None, **options: Any) -> None:
    where = None if name is None else checkpoint(name)
    TextTokenizer(TextTokenizerConfig(kind="text", **options), where).check("features.x.tokenizer")


def test_config_errors_name_their_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"features\.x\.tokenizer\.max_length: 513; the model has 512"):
        _check("roberta", max_length=513)
    with pytest.raises(ConfigError, match=r"features\.x\.tokenizer\.max_length: 2"):
        _check("bert", max_length=2)
    with pytest.raises(ConfigError, match=r"features\.x\.tokenizer\.max_length: 6"):
        _check("bert", max_length=6, prompt="a red circle moves left: ")
    with pytest.raises(ConfigError, match=r"features\.x\.tokenizer\.overlap: 10; less than 10"):
        _check("bert", max_length=12, overflow="windows", overlap=10)
    with pytest.raises(ConfigError, match=r"features\.x\.tokenizer\.overlap"):
        _check("bert", overlap=3)
    with pytest.raises(ConfigError, match=r"features\.x\.tokenizer\.checkpoint.*not given"):
        _check(None)
    with pytest.raises(ConfigError, match=r"features\.x\.tokenizer\.checkpoint.*no folder"):
        _check(None, checkpoint=str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"features\.x\.tokenizer\.checkpoint.*leave it out"):
        _check("bert", checkpoint=str(tmp_path))
    with pytest.raises(ConfigError, match=r"no tokenizer that loads"):
        _check("wav2vec2")


def test_a_slow_tokenizer_is_refused(tmp_path: Path) -> None:
    where = copy("bert", tmp_path, without=["tokenizer.json", "tokenizer_config.json"])
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CanineTokenizer"}))
    with pytest.raises(ConfigError, match=r"CanineTokenizer is a slow tokenizer"):
        TextTokenizer(TextTokenizerConfig(kind="text"), where).check("features.x.tokenizer")


_BLANKS = " \t\n\r\x0b\x0c\x1c\x1f\x85\xa0\u2003\u2028\u2029\u3000"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prompt", ["", "a: "])
def test_white_space_alone_is_one_span_and_empty(name: str, prompt: str) -> None:
    """Also where the tokenizer has more tokens for it than a window has room for."""
    tokenizer = _tokenizer(name, max_length=9, overflow="windows", prompt=prompt)
    for text in ("\r" * 40, " \r \r \r \r", _BLANKS * 3, _BLANKS[::-1], " "):
        assert tokenizer.cut(text) == [(0, len(text))]
        with pytest.raises(SampleError, match="empty: no words in it"):
            tokenizer.tokenize(Text(text))


def _holds(tokenizer: TextTokenizer, name: str, text: str) -> list[tuple[int, int]]:
    """Cut ``text`` and assert what every cut promises."""
    spans = tokenizer.cut(text)
    prompt, most = tokenizer.config.prompt, tokenizer.max_length
    covered = set()
    assert spans
    for (start, end), next_snapshot in zip(spans, [*spans[1:], None], strict=True):
        assert 0 <= start <= end <= len(text)
        if len(spans) > 1:
            assert len(_reference(name)(prompt + text[start:end])["input_ids"]) <= most or end == start + 1
            assert not text[start].isspace()
        if next_snapshot is not None:
            assert start < next_snapshot[0]
            assert end < next_snapshot[1]
        covered.update(range(start, end))
    assert all(position in covered or letter.isspace() for position, letter in enumerate(text))
    return spans


_WORDS = st.lists(
    st.text(max_size=12)
    | st.text(_BLANKS, max_size=12)
    | st.sampled_from(["the red circle", "moves", "xyz" * 40, "\U0001f99c" * 9, "e\u0301" * 9]),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(
    words=_WORDS,
    name=st.sampled_from(NAMES),
    max_length=st.sampled_from([4, 9, 12, 33]),
    overlap=st.sampled_from([0, 1, 5]),
    prompt=st.sampled_from(["", "a: "]),
)
@example(words=["", "\r", "\r", "\r", "\r"], name="roberta", max_length=9, overlap=0, prompt="")
def test_cuts_lose_nothing_and_fit(words: list[str], name: str, max_length: int, overlap: int, prompt: str) -> None:
    prompt, overlap = prompt if max_length > 12 else "", min(overlap, max_length - 3)
    tokenizer = _tokenizer(name, max_length=max_length, overflow="windows", overlap=overlap, prompt=prompt)
    _holds(tokenizer, name, " ".join(words))


@pytest.mark.parametrize("name", ["bert", "roberta", "xlm_roberta"])
@pytest.mark.parametrize("overlap", [0, 8])
def test_real_texts_are_cut_at_words_into_full_windows(name: str, overlap: int, data: Path) -> None:
    tokenizer = _tokenizer(name, max_length=64, overflow="windows", overlap=overlap)
    text = (data / "text" / "captions.csv").read_text()[:20000]
    spans = _holds(tokenizer, name, text)
    lengths = [len(tokenizer.tokenize(Text(text[a:b])).inputs["input_ids"]) for a, b in spans]
    assert np.mean(lengths[:-1]) > 50
    for start, end in spans:
        assert start == 0 or text[start - 1].isspace()
        assert end == len(text) or text[end].isspace()
    shared = [len(_reference(name)(text[b:a])["input_ids"]) - 2 if b < a else 0 for (_, a), (b, _) in pairwise(spans)]
    if overlap:
        assert overlap / 2 < np.mean(shared) < 2 * overlap
    else:
        assert max(shared) == 0


def test_a_short_text_is_one_window() -> None:
    tokenizer = _tokenizer("bert", max_length=16, overflow="windows", overlap=4)
    assert tokenizer.cut("a red circle") == [(0, 12)]
    assert tokenizer.cut("") == [(0, 0)]


def test_a_giant_word_is_cut_between_characters() -> None:
    tokenizer = _tokenizer("roberta", max_length=12, overflow="windows")
    text = "left " + "q" * 300 + " right"
    spans = _holds(tokenizer, "roberta", text)
    assert len(spans) >= 30
    assert spans[0][0] == 0
    assert spans[-1][1] == len(text)


def test_threads_may_share_a_tokenizer(data: Path) -> None:
    """Truncation is a state of the library's tokenizer: cutting in another thread must not change it."""
    from concurrent.futures import ThreadPoolExecutor

    tokenizer = _tokenizer("roberta", max_length=32, overflow="windows", overlap=4)
    text = (data / "text" / "captions.csv").read_text()[:3000]
    ids, spans = tokenizer.tokenize(Text(text)).inputs["input_ids"], tokenizer.cut(text)
    with ThreadPoolExecutor(4) as pool:
        some = [pool.submit(tokenizer.cut, text) for _ in range(20)]
        others = [pool.submit(tokenizer.tokenize, Text(text)) for _ in range(200)]
        assert all(one.result() == spans for one in some)
        assert all(np.array_equal(one.result().inputs["input_ids"], ids) for one in others)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prompt", [pytest.param("", marks=pytest.mark.slow), "query: "])
def test_the_beginning_of_a_long_text_is_enough(name: str, prompt: str, data: Path) -> None:
    """Truncated ids equal those of the whole text, for words, for one endless word, and for blanks."""
    words = " ".join(texts(data)) * 40
    for text in (words, "a" * 40_000, "日本語" * 20_000, " " * 30_000 + words, "x " * 30_000):
        tokenizer = _tokenizer(name, max_length=24, prompt=prompt)
        try:
            ids = tokenizer.tokenize(Text(text)).inputs["input_ids"].tolist()
        except SampleError:
            continue
        whole = _reference(name)(prompt + text, truncation=True, max_length=24)["input_ids"]
        assert ids == whole


def test_a_long_text_is_not_read_whole() -> None:
    seen = []
    tokenizer = TextTokenizer(TextTokenizerConfig(kind="text", max_length=16), checkpoint("bert"))
    tokenizer.check("x")
    tokenizer.setup()
    call = tokenizer._call
    tokenizer._call = lambda which, text, truncated: (seen.append(len(text)), call(which, text, truncated))[1]  # type: ignore[method-assign]
    tokenizer.tokenize(Text("some words " * 1_000_000))
    assert max(seen) < 10_000


@pytest.mark.parametrize(
    "steps",
    [
        [{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * 40,
        [{"type": "Replace", "pattern": {"Regex": "a"}, "content": "a" * 2000}],
        [{"type": "Sequence", "normalizers": [{"type": "ByteLevel"}] * 30}],
    ],
)
def test_steps_that_grow_a_text_without_end_are_refused(tmp_path: Path, steps: list[dict[str, Any]]) -> None:
    folder = tmp_path
    copy("bert", folder)
    values = json.loads((folder / "tokenizer.json").read_text())
    values["normalizer"] = {"type": "Sequence", "normalizers": steps}
    (folder / "tokenizer.json").write_text(json.dumps(values))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**settings, "tokenizer_class": "PreTrainedTokenizerFast"})
    )
    with pytest.raises(ConfigError, match=r"make up to .* characters of each; at most 1000"):
        TextTokenizer(TextTokenizerConfig(kind="text", checkpoint=str(folder)), None).check("features.x.tokenizer")
