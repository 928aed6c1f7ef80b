"""Small checkpoints of real audio architectures, with weights from a fixed seed and their feature extractors.

They are untrained and run in milliseconds, through the same code as the large models.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.demo.checkpoints._seeded import roberta_tokenizer, save

_SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
_WAVES: dict[str, Any] = {
    **_SIZES,
    "vocab_size": 32,
    "conv_dim": (32,) * 7,
    "num_conv_pos_embeddings": 32,
    "num_conv_pos_embedding_groups": 4,
}
"""The convolutions have the kernels and strides of the large models: one frame per 20 ms at 16 kHz."""
_LAYER_NORM: dict[str, Any] = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
_TEXT_TOKENS = 512


def write_wav2vec2(folder: str) -> None:
    """Group norm, as in the base models. Its inputs must not be padded."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    _write_waves(Wav2Vec2Model, Wav2Vec2Config(**_WAVES), folder, masked=False)


def write_wav2vec2_layer(folder: str) -> None:
    """Layer norm, as in the large models."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    _write_waves(Wav2Vec2Model, Wav2Vec2Config(**_WAVES, **_LAYER_NORM), folder, masked=True)


def write_hubert(folder: str) -> None:
    from transformers import HubertConfig, HubertModel

    _write_waves(HubertModel, HubertConfig(**_WAVES), folder, masked=False)


def write_wavlm(folder: str) -> None:
    from transformers import WavLMConfig, WavLMModel

    _write_waves(WavLMModel, WavLMConfig(**_WAVES, **_LAYER_NORM), folder, masked=True)


def write_whisper(folder: str) -> None:
    """The full span of 30 s: 3000 frames of 80 mel bins, 1500 tokens."""
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

    config = WhisperConfig(
        d_model=32,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        vocab_size=32,
        max_target_positions=16,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    save(WhisperModel, config, folder, keep=("encoder.embed_positions",))
    WhisperFeatureExtractor().save_pretrained(folder)


def write_ast(folder: str) -> None:
    """A span of 2.56 s: 256 frames of 64 mel bins, 25 x 5 overlapping patches."""
    from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

    save(ASTModel, ASTConfig(**_SIZES, max_length=256, num_mel_bins=64), folder)
    ASTFeatureExtractor(max_length=256, num_mel_bins=64).save_pretrained(folder)


def write_clap(folder: str) -> None:
    from transformers import ClapFeatureExtractor

    _write_clap(folder, ClapFeatureExtractor(truncation="rand_trunc", padding="repeatpad"))


def write_clap_fused(folder: str) -> None:
    """The model takes four spectrograms of each sound, and fuses them."""
    from transformers import ClapFeatureExtractor

    extractor = ClapFeatureExtractor(truncation="fusion", padding="repeatpad")
    _write_clap(folder, extractor, enable_fusion=True, fusion_type="aff_2d")


WRITERS: dict[str, Callable[[str], None]] = {
    "wav2vec2": write_wav2vec2,
    "wav2vec2_layer": write_wav2vec2_layer,
    "hubert": write_hubert,
    "wavlm": write_wavlm,
    "whisper": write_whisper,
    "ast": write_ast,
    "clap": write_clap,
    "clap_fused": write_clap_fused,
}
"""Name of a checkpoint -> the function that writes it into a folder."""


def _write_waves(model_class: Any, config: Any, folder: str, masked: bool) -> None:
    from transformers import Wav2Vec2FeatureExtractor

    save(model_class, config, folder, keep=("original0", "weight_g"))
    Wav2Vec2FeatureExtractor(return_attention_mask=masked).save_pretrained(folder)


def _write_clap(folder: str, extractor: Any, **audio: Any) -> None:
    from transformers import ClapConfig, ClapModel, ClapProcessor

    tokenizer = roberta_tokenizer(_TEXT_TOKENS)
    config = ClapConfig(
        text_config={
            **_SIZES,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": _TEXT_TOKENS + 2,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        audio_config={
            "hidden_size": 32,
            "patch_embeds_hidden_size": 16,
            "depths": [1, 1],
            "num_attention_heads": [2, 4],
            "num_hidden_layers": 2,
            "window_size": 8,
            "mlp_ratio": 2.0,
            **audio,
        },
        projection_dim=24,
    )
    save(ClapModel, config, folder, adjust=_centre_decibels)
    ClapProcessor(extractor, tokenizer).save_pretrained(folder)


def _centre_decibels(model: Any) -> None:
    """Sets the statistics of the first batch norm as after training. Without them all sounds give similar vectors."""
    norm = model.audio_model.audio_encoder.batch_norm
    norm.running_mean.fill_(-30.0)
    norm.running_var.fill_(400.0)
