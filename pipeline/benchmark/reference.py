"""The reference: what a plain script does today, without Tessera's decoders and encoders.

It uses the processor and model of `transformers` in batches of 32, one process per core, and opens images with Pillow,
videos with PyAV and sound with soundfile.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.benchmark._reference_media import Row, read_frames, read_picture, read_sound, read_text
from pipeline.benchmark.baseline import rows_of
from pipeline.benchmark.fresh_process import on_gpu, one_thread
from pipeline.config.features import BoundFeature
from pipeline.config.models import PipelineConfig
from pipeline.core.media import FramesRequest, WaveformRequest
from pipeline.stages.probe import ProbeStage

BATCH = 32
CLIPS = 8
"""Batch of clips: more of them would take gigabytes."""

Forward = Callable[[list[Any]], Any]


def measure(
    config: PipelineConfig, features: tuple[BoundFeature, ...], samples: pa.Table, budget_s: float
) -> dict[str, dict[str, float] | str]:
    """Runs a loop for each feature, for about ``budget_s`` seconds after a first batch that does not count.

    Each loop opens its own media, as scripts do, and leaves out rows that it cannot read.

    Returns:
        By feature: the share of rows that have it, the rows of the loop, its CPU and wall seconds; or why there is no
        loop.
    """
    probe = ProbeStage(config, features)
    probe.setup()
    rows = rows_of(probe(samples), features)
    one_thread()
    return {feature.name: _of(feature, rows, config, budget_s) for feature in features}


def _of(feature: BoundFeature, rows: list[Row], config: PipelineConfig, budget_s: float) -> dict[str, float] | str:
    """Runs the loop of one feature. Returns its figures, or why there is no loop."""
    if feature.checkpoint is None:
        return "no model, so nothing to compare with"
    own = [row for row in rows if _reads(feature, row)]
    if not own:
        return "the corpus holds none of its media"
    load, forward = _loader(feature), _forward(feature, on_gpu(config))
    taken = 0
    started, since = time.process_time(), time.perf_counter()
    size = CLIPS if feature.config.tokenizer.kind == "tubelet" else BATCH
    for number, batch in enumerate(_batches(itertools.cycle(own), min(size, len(own)))):
        if number == 1 or (number and not taken):
            taken, started, since = 0, time.process_time(), time.perf_counter()
        if number > 1 and taken and time.perf_counter() - since > budget_s:
            break
        if number > 20 and not taken:
            return "it can read none of the files"
        media = [one for row in batch if (one := _load_or_none(load, row)) is not None]
        if media:
            forward(media)
            taken += len(media)
    spent, passed = time.process_time() - started, time.perf_counter() - since
    return {"share": len(own) / len(rows), "rows": taken, "cpu_s": spent, "wall_s": passed}


def _reads(feature: BoundFeature, row: Row) -> bool:
    """Returns whether the loop of a feature reads a row. Media without times are read once per sample.

    Subtitles are left out, since a script reads whole texts.
    """
    if feature.modality == "text":
        once = row["window"] == 0 or row["text_from"] is not None
        return once and not row["text_timed"] and bool(row["text_uri"] or row["inline_text"])
    return row[f"{feature.modality}_uri"] is not None and (feature.timed or row["window"] == 0)


def _batches(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    """Yields lists of ``size`` rows, without end."""
    while True:
        yield list(itertools.islice(rows, size))


def _load_or_none(load: Callable[[Row], Any], row: Row) -> Any:
    """Returns the media of a row, or None if it cannot be read."""
    try:
        return load(row)
    except Exception:  # libraries raise errors of any class for files that they cannot read
        return None


# -- media -------------------------------------------------------------------------------------------


def _loader(feature: BoundFeature) -> Callable[[Row], Any]:
    """Returns the function that opens the media of a row."""
    request = feature.tokenizer().request()
    if feature.modality == "text":
        prompt = getattr(feature.config.tokenizer, "prompt", None) or ""
        return lambda row: prompt + read_text(row)
    if feature.modality == "image":
        return read_picture
    if isinstance(request, FramesRequest):
        sampling = request.sampling
        return lambda row: read_frames(row, sampling)
    assert isinstance(request, WaveformRequest)
    rate = request.sample_rate
    return lambda row: read_sound(row, rate)


# -- models ------------------------------------------------------------------------------------------


def _forward(feature: BoundFeature, gpu: bool) -> Forward:
    """Returns the function that encodes a batch of media: the checkpoint's own processor and model in float32.

    Its results are arrays on the host.
    """
    import torch
    from transformers import AutoModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    assert feature.checkpoint is not None
    path, kind = feature.checkpoint.path, feature.config.encoder.kind
    device = "cuda" if gpu else "cpu"
    options = {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True}
    model = AutoModel.from_pretrained(path, dtype=torch.float32, **options).eval().to(device)
    prepare = _processor(feature, path)
    call = model
    if kind in ("clip", "siglip"):
        call = model.get_text_features if feature.modality == "text" else model.get_image_features
    elif kind == "clap":
        call = model.get_text_features if feature.modality == "text" else model.get_audio_features
    elif kind == "whisper":
        call = model.get_encoder()

    def forward(media: list[Any]) -> list[np.ndarray]:
        done = []
        with torch.inference_mode():
            for inputs in prepare(media):
                out = call(**{name: value.to(device) for name, value in inputs.items() if hasattr(value, "to")})
                vectors = (out.get("last_hidden_state"), out.get("pooler_output"))
                done += [one.float().cpu().numpy() for one in vectors if one is not None]
        return done

    return forward


def _processor(feature: BoundFeature, path: str) -> Callable[[list[Any]], Iterator[Any]]:
    """Returns the function that makes the inputs of the model from a batch of media.

    It yields one batch, or several of frames for videos.
    """
    from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoProcessor, AutoTokenizer, AutoVideoProcessor

    tokenizer_config: Any = feature.config.tokenizer
    options = {"local_files_only": True, "trust_remote_code": False}
    if feature.modality == "text":
        tokenizer = AutoTokenizer.from_pretrained(path, **options)
        longest = tokenizer_config.max_length or min(tokenizer.model_max_length, 1 << 14)

        def texts(media: list[str]) -> Iterator[Any]:
            # SigLIP is trained on padded texts, and attends to the padding
            padding = "max_length" if feature.config.encoder.kind == "siglip" else True
            yield tokenizer(media, padding=padding, truncation=True, max_length=longest, return_tensors="pt")

        return texts
    if feature.config.encoder.kind == "embedding_gemma2":
        processor = AutoProcessor.from_pretrained(path, **options)
        name = {"image": "images", "video": "videos", "audio": "audio"}[feature.modality]

        def together(media: list[Any]) -> Iterator[Any]:
            extra = {"do_sample_frames": False} if name == "videos" else {}
            each = [[one] for one in media] if name == "images" else media  # a flat list of images would be one prompt
            yield processor(**{name: each}, **extra, return_tensors="pt")

        return together
    if feature.modality == "audio":
        extractor = AutoFeatureExtractor.from_pretrained(path, **options)

        def sounds(media: list[np.ndarray]) -> Iterator[Any]:
            padded = {"padding": True} if feature.config.encoder.kind == "wav2vec2" else {}
            yield extractor(media, sampling_rate=extractor.sampling_rate, return_tensors="pt", **padded)

        return sounds
    if tokenizer_config.kind == "tubelet":
        videos = AutoVideoProcessor.from_pretrained(path, **options)

        def clips(media: list[np.ndarray]) -> Iterator[Any]:
            yield videos(media, do_sample_frames=False, return_tensors="pt")

        return clips
    images = AutoImageProcessor.from_pretrained(path, **options)

    def pictures(media: list[Any]) -> Iterator[Any]:
        every = [frame for one in media for frame in one] if feature.modality == "video" else media
        for start in range(0, len(every), BATCH):
            yield images(every[start : start + BATCH], return_tensors="pt")

    return pictures
