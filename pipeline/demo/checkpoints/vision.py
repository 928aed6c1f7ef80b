"""Small checkpoints of true vision architectures, weights drawn from a fixed seed, processors included.

They know nothing; they run in milliseconds, and every code path of the large ones runs with them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from pipeline.encoders import quiet

_WIDE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_LONGEST = 32
_WORDS = {**_WIDE, "intermediate_size": 64, "max_position_embeddings": _LONGEST}
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

    tokenizer = _clip_tokenizer()
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

    tokenizer = _siglip_tokenizer()
    config = SiglipConfig(
        text_config={**_WORDS, **_ids(tokenizer), "projection_size": 48},
        vision_config={**_WIDE, "hidden_size": 48, "intermediate_size": 64, "image_size": 48, "patch_size": 16},
    )
    _save(SiglipModel, config, folder)
    SiglipProcessor(SiglipImageProcessor(size={"height": 48, "width": 48}), tokenizer).save_pretrained(folder)


def write_siglip2(folder: str) -> None:
    """NaFlex: a picture keeps its shape, at most 25 patches."""
    from transformers import Siglip2Config, Siglip2ImageProcessor, Siglip2Model, Siglip2Processor

    tokenizer = _siglip2_tokenizer()
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
"""Name of a checkpoint -> what writes it into a folder."""


def _save(model_class: Any, config: Any, folder: str) -> None:
    """Weights larger than an untrained model's, so that different pictures give clearly different vectors."""
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
    """What the text tower's config must know of its tokenizer."""
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return {**special, "vocab_size": len(tokenizer)}


def _bit_processor() -> Any:
    from transformers import BitImageProcessor

    return BitImageProcessor(
        size={"shortest_edge": 64},
        crop_size={"height": 56, "width": 56},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )


def _sentences() -> list[str]:
    """What the demo corpus talks of, for tokenizers to learn their pieces from."""
    shapes, colours = ("circle", "square", "triangle", "star"), ("red", "green", "blue", "yellow", "white", "black")
    moves = ("moves left", "moves right", "rises", "falls", "stays", "turns")
    return [f"a {colour} {shape} {move} on a plain ground." for colour in colours for shape in shapes for move in moves]


def _merges(backend: Any, rounds: int, suffix: str = "") -> list[tuple[str, str]]:
    """Byte-pair merges for the sentences as ``backend`` normalizes and splits them, the most frequent pair
    first. The `tokenizers` trainer breaks ties at random; a checkpoint must come out the same every time."""
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
    done: list[str] = []
    for piece in word:
        if done and (done[-1], piece) == pair:
            done[-1] += piece
        else:
            done.append(piece)
    return tuple(done)


def _numbered(*pieces: str) -> dict[str, int]:
    return {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}


def _clip_tokenizer() -> Any:
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
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=_LONGEST)


def _siglip_tokenizer() -> Any:
    """A unigram model: every word and every letter of the sentences is a piece."""
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
        model_max_length=_LONGEST,
        model_input_names=["input_ids"],
        padding_side="right",
    )


def _siglip2_tokenizer() -> Any:
    from tokenizers import processors
    from transformers import Siglip2Tokenizer

    merges = _merges(Siglip2Tokenizer().backend_tokenizer, 150)
    vocab = _numbered(
        *("<pad>", "<eos>", "<bos>", "<unk>", "<mask>"),
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *sorted(set("".join(_sentences()).replace(" ", "▁"))),
        *(left + right for left, right in merges),
    )
    tokenizer = Siglip2Tokenizer(vocab=vocab, merges=merges, model_max_length=_LONGEST)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", vocab["<eos>"])]
    )
    return tokenizer
