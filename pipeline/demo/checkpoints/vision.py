"""Small checkpoints of real vision architectures, with weights from a fixed seed and their processors.

They are untrained and run in milliseconds, through the same code as the large models.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.demo.checkpoints._vision_tokenizers import LONGEST, clip_tokenizer, siglip2_tokenizer, siglip_tokenizer
from pipeline.encoders import quiet

_WIDE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_WORDS = {**_WIDE, "intermediate_size": 64, "max_position_embeddings": LONGEST}
_SEED = 20


def write_vit(folder: str) -> None:
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    _save(ViTModel, ViTConfig(**_WIDE, intermediate_size=64, image_size=48, patch_size=16), folder)
    ViTImageProcessor(size={"height": 48, "width": 48}).save_pretrained(folder)


def write_dinov2(folder: str) -> None:
    from transformers import Dinov2Config, Dinov2Model

    _save(Dinov2Model, Dinov2Config(**_WIDE, mlp_ratio=2, image_size=56, patch_size=14), folder)
    _bit_processor().save_pretrained(folder)


def write_dinov2_with_registers(folder: str) -> None:
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    config = Dinov2WithRegistersConfig(**_WIDE, mlp_ratio=2, image_size=56, patch_size=14, num_register_tokens=3)
    _save(Dinov2WithRegistersModel, config, folder)
    _bit_processor().save_pretrained(folder)


def write_dinov3(folder: str) -> None:
    from transformers import DINOv3ViTConfig, DINOv3ViTImageProcessor, DINOv3ViTModel

    config = DINOv3ViTConfig(**_WIDE, intermediate_size=64, image_size=48, patch_size=16, num_register_tokens=4)
    _save(DINOv3ViTModel, config, folder)
    DINOv3ViTImageProcessor(size={"height": 48, "width": 48}).save_pretrained(folder)


def write_clip(folder: str) -> None:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    tokenizer = clip_tokenizer()
    config = CLIPConfig(
        text_config={**_WORDS, **_ids(tokenizer)},
        vision_config={**_WIDE, "hidden_size": 48, "intermediate_size": 64, "image_size": 48, "patch_size": 16},
        projection_dim=24,
    )
    _save(CLIPModel, config, folder)
    pictures = CLIPImageProcessor(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48})
    CLIPProcessor(pictures, tokenizer).save_pretrained(folder)


def write_siglip(folder: str) -> None:
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel, SiglipProcessor

    tokenizer = siglip_tokenizer()
    config = SiglipConfig(
        text_config={**_WORDS, **_ids(tokenizer), "projection_size": 48},
        vision_config={**_WIDE, "hidden_size": 48, "intermediate_size": 64, "image_size": 48, "patch_size": 16},
    )
    _save(SiglipModel, config, folder)
    SiglipProcessor(SiglipImageProcessor(size={"height": 48, "width": 48}), tokenizer).save_pretrained(folder)


def write_siglip2(folder: str) -> None:
    """NaFlex: an image keeps its aspect ratio and has at most 25 patches."""
    from transformers import Siglip2Config, Siglip2ImageProcessor, Siglip2Model, Siglip2Processor

    tokenizer = siglip2_tokenizer()
    config = Siglip2Config(
        text_config={**_WORDS, **_ids(tokenizer), "projection_size": 48},
        vision_config={**_WIDE, "hidden_size": 48, "intermediate_size": 64, "num_patches": 16, "patch_size": 16},
    )
    _save(Siglip2Model, config, folder)
    Siglip2Processor(Siglip2ImageProcessor(patch_size=16, max_num_patches=25), tokenizer).save_pretrained(folder)


def write_videomae(folder: str) -> None:
    from transformers import VideoMAEConfig, VideoMAEModel, VideoMAEVideoProcessor

    config = VideoMAEConfig(
        **_WIDE,
        intermediate_size=64,
        image_size=32,
        patch_size=16,
        num_frames=8,
        tubelet_size=2,
        use_mean_pooling=False,
    )
    _save(VideoMAEModel, config, folder)
    VideoMAEVideoProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)


def write_vjepa2(folder: str) -> None:
    from transformers import VJEPA2Config, VJEPA2Model, VJEPA2VideoProcessor

    config = VJEPA2Config(
        **{**_WIDE, "num_attention_heads": 2},
        mlp_ratio=2.0,
        crop_size=32,
        patch_size=16,
        frames_per_clip=8,
        tubelet_size=2,
        pred_hidden_size=32,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
        pred_mlp_ratio=2.0,
        pred_num_mask_tokens=2,
        num_pooler_layers=1,
    )
    _save(VJEPA2Model, config, folder)
    VJEPA2VideoProcessor(crop_size=32).save_pretrained(folder)


WRITERS: dict[str, Callable[[str], None]] = {
    "vit": write_vit,
    "dinov2": write_dinov2,
    "dinov2_with_registers": write_dinov2_with_registers,
    "dinov3": write_dinov3,
    "clip": write_clip,
    "siglip": write_siglip,
    "siglip2": write_siglip2,
    "videomae": write_videomae,
    "vjepa2": write_vjepa2,
}
"""Name of a checkpoint -> the function that writes it into a folder."""


def _save(model_class: Any, config: Any, folder: str) -> None:
    """Writes a model with weights from the seed.

    They are larger than those of an untrained model, so that different images give clearly different vectors.
    """
    import torch

    with quiet(), torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(_SEED)
        model = model_class(config)
        for weight in model.parameters():
            if weight.ndim == 2 or weight.ndim > 3:
                weight.normal_(std=weight[0].numel() ** -0.5)
            elif weight.ndim == 3:
                weight.normal_(std=0.5)
            elif weight.ndim == 1:
                weight.add_(torch.randn_like(weight) * 0.1)
        model.save_pretrained(folder)


def _ids(tokenizer: Any) -> dict[str, int | None]:
    """Returns what the config of a text tower has of its tokenizer: special ids and the size of the vocabulary."""
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return {**special, "vocab_size": len(tokenizer)}


def _bit_processor() -> Any:
    """Returns the image processor of DINOv2."""
    from transformers import BitImageProcessor

    return BitImageProcessor(
        size={"shortest_edge": 64},
        crop_size={"height": 56, "width": 56},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
