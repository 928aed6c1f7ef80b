"""What people write today: `transformers`' own processor and model in batches of 32, one process a core; pictures
opened with Pillow, videos with PyAV, sound with soundfile. Nothing of Tessera decodes or encodes here."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.benchmark.baseline import rows_of
from pipeline.benchmark.fresh_process import on_gpu, one_thread
from pipeline.config.features import BoundFeature
from pipeline.config.models import PipelineConfig
from pipeline.core.media import FramesRequest, UniformSampling, WaveformRequest
from pipeline.decoders import open_av
from pipeline.decoders.image import FORMATS
from pipeline.stages.probe import ProbeStage
from pipeline.storage.blob import Blob

BATCH = 32
CLIPS = 8
"""Whole videos at once take gigabytes more."""

Row = dict[str, Any]
Forward = Callable[[list[Any]], Any]


def measure(
    config: PipelineConfig, features: tuple[BoundFeature, ...], samples: pa.Table, budget_s: float
) -> dict[str, dict[str, float] | str]:
    """By feature: the share of the rows that have it, how many the loop took, its CPU and wall seconds; or why there
    is none.

    Each feature's loop opens its own media, as scripts do, for about ``budget_s`` seconds after a first batch that
    does not count. A row that it cannot read is left out.
    """
    probe = ProbeStage(config, features)
    probe.setup()
    rows = rows_of(probe(samples), features)
    one_thread()
    return {feature.name: _of(feature, rows, config, budget_s) for feature in features}


def _of(feature: BoundFeature, rows: list[Row], config: PipelineConfig, budget_s: float) -> dict[str, float] | str:
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
        media = [one for row in batch if (one := _tried(load, row)) is not None]
        if media:
            forward(media)
            taken += len(media)
    spent, passed = time.process_time() - started, time.perf_counter() - since
    return {"share": len(own) / len(rows), "rows": taken, "cpu_s": spent, "wall_s": passed}


def _reads(feature: BoundFeature, row: Row) -> bool:
    """Subtitles are left out: a script reads a text whole. What has no times is read once a sample."""
    if feature.modality == "text":
        once = row["window"] == 0 or row["text_from"] is not None
        return once and not row["text_timed"] and bool(row["text_uri"] or row["inline_text"])
    return row[f"{feature.modality}_uri"] is not None and (feature.timed or row["window"] == 0)


def _batches(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while True:
        yield list(itertools.islice(rows, size))


def _tried(load: Callable[[Row], Any], row: Row) -> Any:
    try:
        return load(row)
    except Exception:  # what this library does not read is no row of the loop
        return None


# -- media -------------------------------------------------------------------------------------------


def _loader(feature: BoundFeature) -> Callable[[Row], Any]:
    request = feature.tokenizer().request()
    if feature.modality == "text":
        prompt = getattr(feature.config.tokenizer, "prompt", None) or ""
        return lambda row: prompt + _text(row)
    if feature.modality == "image":
        return _picture
    if isinstance(request, FramesRequest):
        sampling = request.sampling
        return lambda row: _frames(row, sampling)
    assert isinstance(request, WaveformRequest)
    rate = request.sample_rate
    return lambda row: _sound(row, rate)


def _text(row: Row) -> str:
    text: str = row["inline_text"]
    if text is None:
        with Blob(row["text_uri"]).open() as file:
            text = file.read().decode()
    if row["text_from"] is not None:
        text = text[row["text_from"] : row["text_to"]]
    return text


def _picture(row: Row) -> Any:
    from PIL import Image

    with Blob(row["image_uri"]).open() as file:
        return Image.open(file, formats=FORMATS).convert("RGB")


def _frames(row: Row, sampling: Any) -> np.ndarray:
    """[T, H, W, 3]: from the key frame before the window to its end; of the frames decoded, those that are asked for
    are converted."""
    start, end = row["start_s"], row["end_s"]
    with Blob(row["video_uri"]).open() as file, open_av(file) as container:
        stream = container.streams.video[0]
        if start:
            container.seek(int(start / stream.time_base), stream=stream)
        frames = []
        for frame in container.decode(stream):
            if frame.time is None or frame.time < start - 1e-6:
                continue
            if frame.time >= end:
                break
            frames.append(frame)
        if isinstance(sampling, UniformSampling):
            count = sampling.frames
        else:
            count = max(1, min(round((end - start) * sampling.fps), sampling.max_frames or 1 << 30))
        chosen = np.linspace(0, len(frames) - 1, count).round().astype(int)
        return np.stack([frames[i].to_ndarray(format="rgb24") for i in chosen])


def _sound(row: Row, sample_rate: int) -> np.ndarray:
    import torch
    import torchaudio

    uri, start, end = row["audio_uri"], row["start_s"], row["end_s"]
    with Blob(uri).open() as file:
        try:
            import soundfile

            with soundfile.SoundFile(file) as sound:
                rate = sound.samplerate
                sound.seek(min(int(start * rate), sound.frames))
                samples = sound.read(int((end - start) * rate), dtype="float32", always_2d=True).mean(1)
        except soundfile.LibsndfileError:
            file.seek(0)
            samples, rate = _track(file, start, end)
    if rate != sample_rate:
        samples = torchaudio.functional.resample(torch.from_numpy(samples), rate, sample_rate).numpy()
    return np.ascontiguousarray(samples)


def _track(file: Any, start: float, end: float) -> tuple[np.ndarray, int]:
    """The sound of a container."""
    import av

    with open_av(file) as container:
        stream = container.streams.audio[0]
        if start:
            container.seek(int(start / stream.time_base), stream=stream)
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=stream.rate)
        parts: list[np.ndarray] = []
        first: float | None = None
        for frame in container.decode(stream):
            if frame.time is not None and frame.time >= end:
                break
            if frame.time is None or frame.time + frame.samples / frame.sample_rate > start:
                parts += [one.to_ndarray()[0] for one in resampler.resample(frame)]
            first = frame.time if first is None and parts else first
        samples = np.concatenate(parts)[max(0, round((start - (first or 0.0)) * stream.rate)) :]
        return samples[: round((end - start) * stream.rate)], stream.rate


# -- models ------------------------------------------------------------------------------------------


def _forward(feature: BoundFeature, gpu: bool) -> Forward:
    """Media of one batch -> arrays on the host, by the checkpoint's own processor and model in float32."""
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
    """Media of one batch -> what the model takes, in one batch, or more where a video's frames make more."""
    from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoProcessor, AutoTokenizer, AutoVideoProcessor

    tokenizer_config: Any = feature.config.tokenizer
    options = {"local_files_only": True, "trust_remote_code": False}
    if feature.modality == "text":
        tokenizer = AutoTokenizer.from_pretrained(path, **options)
        longest = tokenizer_config.max_length or min(tokenizer.model_max_length, 1 << 14)

        def texts(media: list[str]) -> Iterator[Any]:
            # SigLIP is trained on padded texts, and sees the padding
            padding = "max_length" if feature.config.encoder.kind == "siglip" else True
            yield tokenizer(media, padding=padding, truncation=True, max_length=longest, return_tensors="pt")

        return texts
    if feature.config.encoder.kind == "embedding_gemma2":
        processor = AutoProcessor.from_pretrained(path, **options)
        name = {"image": "images", "video": "videos", "audio": "audio"}[feature.modality]

        def together(media: list[Any]) -> Iterator[Any]:
            extra = {"do_sample_frames": False} if name == "videos" else {}
            each = [[one] for one in media] if name == "images" else media  # else all of them are one prompt's
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
