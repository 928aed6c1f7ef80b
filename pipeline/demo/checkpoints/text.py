"""Small checkpoints of real text architectures, with weights from a fixed seed and their tokenizers.

They are untrained and run in milliseconds, through the same code as the large models.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.demo.checkpoints._seeded import byte_pairs, roberta_tokenizer, save, sentences, wordpieces

_SIZES: dict[str, Any] = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
_TOKENS = 512
"""Longest sequence. Architectures that number positions from the padding id have two more rows."""
_BERT_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def write_bert(folder: str) -> None:
    from transformers import BertConfig, BertModel, BertTokenizer

    tokenizer = BertTokenizer(vocab=wordpieces(_BERT_SPECIALS), model_max_length=_TOKENS)
    config = BertConfig(**_SIZES, vocab_size=len(tokenizer), max_position_embeddings=_TOKENS)
    _write(BertModel, config, tokenizer, folder)


def write_distilbert(folder: str) -> None:
    from transformers import DistilBertConfig, DistilBertModel, DistilBertTokenizer

    tokenizer = DistilBertTokenizer(vocab=wordpieces(_BERT_SPECIALS), model_max_length=_TOKENS)
    config = DistilBertConfig(
        dim=48, n_layers=2, n_heads=4, hidden_dim=96, vocab_size=len(tokenizer), max_position_embeddings=_TOKENS
    )
    _write(DistilBertModel, config, tokenizer, folder)


def write_electra(folder: str) -> None:
    from transformers import BertTokenizer, ElectraConfig, ElectraModel

    tokenizer = BertTokenizer(vocab=wordpieces(_BERT_SPECIALS), model_max_length=_TOKENS)
    config = ElectraConfig(**_SIZES, embedding_size=32, vocab_size=len(tokenizer), max_position_embeddings=_TOKENS)
    _write(ElectraModel, config, tokenizer, folder)


def write_roberta(folder: str) -> None:
    from transformers import RobertaConfig, RobertaModel

    tokenizer = roberta_tokenizer(_TOKENS)
    config = RobertaConfig(
        **_SIZES, **_ids(tokenizer), vocab_size=len(tokenizer), max_position_embeddings=_TOKENS + 2, type_vocab_size=1
    )
    _write(RobertaModel, config, tokenizer, folder)


def write_xlm_roberta(folder: str) -> None:
    """A unigram tokenizer of words, and of letters for other words."""
    from transformers import XLMRobertaConfig, XLMRobertaModel, XLMRobertaTokenizer

    words = sorted({word.strip(".") for sentence in sentences() for word in sentence.split()})
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    pieces += [(f"▁{word}", -3.0 - 0.001 * i) for i, word in enumerate(words)]
    pieces += [(chr(code), -6.0) for code in range(33, 127)] + [("<mask>", 0.0)]
    tokenizer = XLMRobertaTokenizer(vocab=pieces, model_max_length=_TOKENS)
    config = XLMRobertaConfig(
        **_SIZES, **_ids(tokenizer), vocab_size=len(tokenizer), max_position_embeddings=_TOKENS + 2, type_vocab_size=1
    )
    _write(XLMRobertaModel, config, tokenizer, folder)


def write_mpnet(folder: str) -> None:
    from transformers import MPNetConfig, MPNetModel, MPNetTokenizer

    vocab = wordpieces(["<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>"])
    tokenizer = MPNetTokenizer(vocab=vocab, model_max_length=_TOKENS)
    config = MPNetConfig(**_SIZES, **_ids(tokenizer), vocab_size=len(tokenizer), max_position_embeddings=_TOKENS + 2)
    _write(MPNetModel, config, tokenizer, folder)


def write_modernbert(folder: str) -> None:
    """Rotary positions, a byte-level tokenizer, and one layer that attends to 16 neighbours only."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import ModernBertConfig, ModernBertModel, PreTrainedTokenizerFast

    vocab, merges = byte_pairs(_BERT_SPECIALS)
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(name, vocab[name]) for name in ("[CLS]", "[SEP]")]
    )
    names = {f"{name.strip('[]').lower()}_token": name for name in _BERT_SPECIALS}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=_TOKENS, **names)
    ids = {f"{name}_token_id": vocab[f"[{name.upper()}]"] for name in ("pad", "cls", "sep")}
    config = ModernBertConfig(
        **_SIZES,
        **ids,
        bos_token_id=ids["cls_token_id"],
        eos_token_id=ids["sep_token_id"],
        vocab_size=len(tokenizer),
        max_position_embeddings=_TOKENS,
        global_attn_every_n_layers=2,
        local_attention=16,
    )
    _write(ModernBertModel, config, tokenizer, folder)


WRITERS: dict[str, Callable[[str], None]] = {
    "bert": write_bert,
    "distilbert": write_distilbert,
    "electra": write_electra,
    "roberta": write_roberta,
    "xlm_roberta": write_xlm_roberta,
    "mpnet": write_mpnet,
    "modernbert": write_modernbert,
}
"""Name of a checkpoint -> the function that writes it into a folder."""


def _ids(tokenizer: Any) -> dict[str, int]:
    return {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}


def _write(model_class: Any, config: Any, tokenizer: Any, folder: str) -> None:
    save(model_class, config, folder)
    tokenizer.save_pretrained(folder)
