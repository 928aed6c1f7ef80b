"""Weights from a fixed seed, and tokenizers trained on generated sentences."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

_SEED = 7
_ONSETS = "b bl br c ch cl cr d dr f fl fr g gl gr h j k l m n p pl pr qu r s sh sl sp st str t th tr v w y z"
_NUCLEI = "a e i o u ai ea ee oa oo ou"
_CODAS = "b ck d g l ll m n nd ng nt p r rd s sh ss st t th x"
_COMMON = """
the of and to in is it that a an on for with as was are be by this from at or not but his her they which one you had
have has were all their there been if more when will would who so no said red green blue yellow white black circle
square triangle star moves left right rises falls sound tone high low dog cat bird rain sea fire clock train
"""


def sentences(count: int = 400) -> list[str]:
    """Returns sentences of common words and of syllables, the same in every run."""
    dice = random.Random(_SEED)
    parts = [part.split() for part in (_ONSETS, _NUCLEI, _CODAS)]
    words = _COMMON.split() * 3 + ["".join(dice.choice(part) for part in parts) for _ in range(300)]
    return [" ".join(dice.choices(words, k=dice.randint(5, 14))) + "." for _ in range(count)]


def save(
    model_class: Any,
    config: Any,
    folder: str,
    keep: tuple[str, ...] = (),
    adjust: Callable[[Any], None] = lambda model: None,
) -> None:
    """Writes a model with weights from the seed, equal in every run.

    They are larger than those of an untrained model, so that different inputs give clearly different vectors.

    Args:
        keep: parts of names of weights that stay as the class initializes them.
        adjust: sets values of the model that must not be random.
    """
    import torch

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(_SEED)
        model = model_class(config)
        adjust(model)
        for name, weight in model.named_parameters():
            if weight.ndim == 0 or any(part in name for part in keep):
                continue
            if weight.ndim == 1:
                weight.add_(torch.randn_like(weight) * 0.1)
            elif weight.shape[0] == 1:  # a class token or a table of positions
                weight.normal_(std=0.5)
            else:
                weight.normal_(std=weight[0].numel() ** -0.5)
    model.save_pretrained(folder)


def wordpieces(specials: list[str]) -> dict[str, int]:
    """Returns a WordPiece vocabulary, ``specials`` first, that covers every word of printable ASCII.

    It has common words, parts of syllables and letters. It is not trained, since the library's trainer breaks ties at
    random.
    """
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    parts = [part for group in (_ONSETS, _NUCLEI, _CODAS) for part in group.split()]
    pieces = [*letters, *_COMMON.split(), *parts]
    pieces += [f"##{piece}" for piece in (*letters, *parts)]
    return {piece: index for index, piece in enumerate(dict.fromkeys([*specials, *pieces]))}


def byte_pairs(specials: list[str], last: str | None = None) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Returns vocabulary and merges of a byte-level BPE, which covers every text."""
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    learner.train_from_iterator(sentences(), trainer)
    model = json.loads(learner.to_str())["model"]
    pieces = [*specials, *sorted(model["vocab"], key=model["vocab"].__getitem__), *([last] if last else [])]
    return {piece: index for index, piece in enumerate(pieces)}, [(a, b) for a, b in model["merges"]]


def roberta_tokenizer(model_max_length: int) -> Any:
    """Returns a tokenizer of RoBERTa's class with the pieces of `byte_pairs`. CLAP's text tower uses the same class."""
    from transformers import RobertaTokenizer

    vocab, merges = byte_pairs(["<s>", "<pad>", "</s>", "<unk>"], last="<mask>")
    return RobertaTokenizer(vocab=vocab, merges=merges, model_max_length=model_max_length)
