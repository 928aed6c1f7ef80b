"""Tokenizers of the small vision checkpoints. Their pieces come from captions like those of the demo corpus."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

LONGEST = 32
"""Most tokens of a text."""


def _sentences() -> list[str]:
    """Returns captions like those of the demo corpus."""
    shapes, colours = ("circle", "square", "triangle", "star"), ("red", "green", "blue", "yellow", "white", "black")
    moves = ("moves left", "moves right", "rises", "falls", "stays", "turns")
    return [f"a {colour} {shape} {move} on a plain ground." for colour in colours for shape in shapes for move in moves]


def _merges(backend: Any, rounds: int, suffix: str = "") -> list[tuple[str, str]]:
    """Returns byte-pair merges for the sentences, as ``backend`` normalizes and splits them, the most frequent first.

    The `tokenizers` trainer breaks ties at random, and a checkpoint must be the same every time.
    """
    counts: Counter[tuple[str, ...]] = Counter()
    for sentence in _sentences():
        for word, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(sentence)):
            counts[(*word[:-1], word[-1] + suffix)] += 1
    merges: list[tuple[str, str]] = []
    for _ in range(rounds):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in counts.items():
            for pair in pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        merges.append(max(pairs, key=lambda pair: (pairs[pair], pair)))
        counts = Counter({_merged(word, merges[-1]): count for word, count in counts.items()})
    return merges


def _merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """Returns the pieces of a word with each occurrence of ``pair`` merged."""
    done: list[str] = []
    for piece in word:
        if done and (done[-1], piece) == pair:
            done[-1] += piece
        else:
            done.append(piece)
    return tuple(done)


def _numbered(*pieces: str) -> dict[str, int]:
    """Returns a vocabulary: each distinct piece with its number."""
    return {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}


def clip_tokenizer() -> Any:
    """Returns a byte-pair tokenizer of CLIP's class."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = _merges(CLIPTokenizer().backend_tokenizer, 100, "</w>")
    vocab = _numbered(
        *letters,
        *(f"{letter}</w>" for letter in letters),
        *(left + right for left, right in merges),
        "<|startoftext|>",
        "<|endoftext|>",
    )
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=LONGEST)


def siglip_tokenizer() -> Any:
    """Returns a unigram tokenizer: every word and every letter of the sentences is a piece."""
    import string

    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = sorted({word for sentence in _sentences() for word in sentence.strip(".").split()})
    pieces = [("</s>", 0.0), ("<unk>", -20.0), ("▁", -4.0)]
    pieces += [(f"▁{word}", -3.0) for word in words if len(word) > 1]
    pieces += [(letter, -6.0) for letter in string.ascii_lowercase + string.digits]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=1))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="</s>",
        pad_token="</s>",
        unk_token="<unk>",
        model_max_length=LONGEST,
        model_input_names=["input_ids"],
        padding_side="right",
    )


def siglip2_tokenizer() -> Any:
    """Returns a byte-pair tokenizer of SigLIP 2's class."""
    from tokenizers import processors
    from transformers import Siglip2Tokenizer

    merges = _merges(Siglip2Tokenizer().backend_tokenizer, 150)
    vocab = _numbered(
        *("<pad>", "<eos>", "<bos>", "<unk>", "<mask>"),
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *sorted(set("".join(_sentences()).replace(" ", "▁"))),
        *(left + right for left, right in merges),
    )
    tokenizer = Siglip2Tokenizer(vocab=vocab, merges=merges, model_max_length=LONGEST)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", vocab["<eos>"])]
    )
    return tokenizer
