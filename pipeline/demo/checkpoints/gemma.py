"""A small EmbeddingGemma 2 with weights from a fixed seed: one model and one processor for all four modalities.

It is untrained and runs in milliseconds, through the same code as the large model.
"""

from __future__ import annotations

from typing import Any

from pipeline.demo.checkpoints._seeded import save, sentences

_BASIC = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
_NAMED = {
    "boi_token": "<|image>",
    "image_token": "<|image|>",
    "eoi_token": "<image|>",
    "boa_token": "<|audio>",
    "audio_token": "<|audio|>",
    "eoa_token": "<audio|>",
}
_VIDEO = "<|video|>"
_MELS, _PATCH = 32, 8
_TOWER: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def write_embedding_gemma2(folder: str) -> None:
    """Images of up to 140 soft tokens, frames of up to 70, sound at 16 kHz, 40 ms per token; vectors of 24 values."""
    from transformers import EmbeddingGemma2Config, EmbeddingGemma2Model

    tokenizer = _tokenizer()
    ids = {f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in _NAMED.items()}
    config = EmbeddingGemma2Config(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "sliding_window_pattern": 2,  # one sliding layer and one full layer, as in the large model
            "sliding_window": 16,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "global_head_dim": 32,
            "num_global_key_value_heads": 1,
            "hidden_size_per_layer_input": 16,
            "embedding_dim": 24,
            "max_position_embeddings": 8192,
        },
        vision_config={
            "model_type": "gemma4_vision",
            **_TOWER,
            "intermediate_size": 64,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "patch_size": _PATCH,
            "position_embedding_size": 512,
        },
        audio_config={
            "model_type": "gemma4_audio",
            **_TOWER,
            "subsampling_conv_channels": [_MELS, 8],
            "output_proj_dims": 48,
        },
        eoa_token_index=ids.pop("eoa_token_id"),
        video_token_id=tokenizer.convert_tokens_to_ids(_VIDEO),
        **ids,
    )
    save(EmbeddingGemma2Model, config, folder, keep=("position_embedding_table",), adjust=_draw_positions)
    _processor(tokenizer).save_pretrained(folder)


WRITERS = {"embedding_gemma2": write_embedding_gemma2}
"""Name of a checkpoint -> the function that writes it into a folder."""


def _draw_positions(model: Any) -> None:
    """Draws the table of positions. The class initializes it with ones, which do not distinguish positions."""
    model.vision_tower.patch_embedder.position_embedding_table.normal_(std=0.3)


def _tokenizer() -> Any:
    """Returns a tokenizer of the words in `sentences`, of single letters, and of bytes for anything else."""
    from transformers import GemmaTokenizer

    words = sorted({f"▁{word.strip('.')}" for sentence in sentences() for word in sentence.split()})
    letters = ["▁", *(chr(code) for code in range(33, 127))]
    steps = [(word[:i], word[i]) for word in words for i in range(1, len(word))]
    merges = list(dict.fromkeys(steps))
    pieces = [*_BASIC, *_NAMED.values(), _VIDEO, *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    pieces += ["".join(merge) for merge in merges]
    return GemmaTokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=merges,
        add_bos_token=True,
        add_eos_token=True,
        model_max_length=8192,
        model_specific_special_tokens=_NAMED,
        extra_special_tokens=[_VIDEO],
    )


def _processor(tokenizer: Any) -> Any:
    from transformers import (
        EmbeddingGemma2Processor,
        EmbeddingGemma2VideoProcessor,
        Gemma4AudioFeatureExtractor,
        Gemma4ImageProcessor,
    )

    return EmbeddingGemma2Processor(
        feature_extractor=Gemma4AudioFeatureExtractor(feature_size=_MELS),
        image_processor=Gemma4ImageProcessor(patch_size=_PATCH, max_soft_tokens=140),
        tokenizer=tokenizer,
        video_processor=EmbeddingGemma2VideoProcessor(patch_size=_PATCH, max_soft_tokens=70),
        image_seq_length=140,
    )
