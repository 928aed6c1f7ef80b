"""What the death of a process costs on the engine ``local``: `python -m tests.measure.cost_of_death FOLDER`.

1. Seconds from the death of an encoder's process until the next one has encoded the block, beside those of the block
   itself: CLIP ViT-B/32 of true size (written into FOLDER), one picture; and the encoders of `configs/media.yaml`.
2. Wall seconds of an extraction of 600 pictures into CLIP ViT-B/32, of 600 into the encoders of `configs/media.yaml`,
   and of 2,000 into the small ViT of the regime ``images``; and of the same with 1 % more that end the decoder's
   process each time that they are decoded; in turn, three times.
"""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import sys
import time
from itertools import cycle, islice
from pathlib import Path

from pipeline import config as configs
from pipeline import run, sources
from pipeline.config.models import PipelineConfig
from pipeline.run import fork_server, pipeline
from pipeline.sandbox import SandboxedStage
from pipeline.sandbox.process import ProcessOptions
from pipeline.sandbox.stage import NO_LIMITS
from pipeline.stages.decode import DecodeStage
from pipeline.stages.encode import EncodeStage
from pipeline.stages.probe import ProbeStage
from tests.measure import regimes
from tests.sandbox.faulty_media import FaultyDecode

ROUNDS, DEATHS = 3, 5


def of_an_encoder(settings: PipelineConfig) -> tuple[float, float]:
    """Median seconds of a block of one row: in a process that is there, and after its death."""
    with fork_server.started(settings, "local") as server:
        assert server is not None
        features = server.features()
        probe, decode = ProbeStage(settings, features), DecodeStage(settings, features)
        probe.setup()
        decode.setup()
        source = sources.build(settings.source)
        source.check("source")
        block = decode(probe(next(iter(source.list())).slice(0, 1)).slice(0, 1))
        encode = SandboxedStage(
            EncodeStage(settings, features), NO_LIMITS, ProcessOptions(server.address), journaled=True
        )
        encode.setup()
        encode(block)
        found: list[list[float]] = [[], []]
        for _ in range(DEATHS):
            for dies, seconds in enumerate(found):
                if dies:
                    assert encode.child is not None
                    os.kill(encode.child.process.pid, signal.SIGKILL)
                started = time.perf_counter()
                encode(block)
                seconds.append(time.perf_counter() - started)
        encode.close()
    return statistics.median(found[0]), statistics.median(found[1])


def of_decoders(folder: Path, regime: str, pictures: int) -> None:
    """Prints the seconds with and without files that kill.

    Args:
        pictures: number of pictures; one for each hundred kills.
    """
    deadly = pictures // 100
    corpus, killers = folder / "pictures", folder / "killers"
    for path in (corpus, killers):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
    there = sorted(path for path in (regimes.DATA / "images").iterdir() if path.suffix in (".jpg", ".png"))
    for number, path in enumerate(islice(cycle(there), pictures)):
        for into in (corpus, killers):
            part = into / f"{number // 50:03d}"  # two parts for each killer, which is in the middle of them
            part.mkdir(exist_ok=True)
            shutil.copyfile(path, part / f"{number:05d}{path.suffix}")
    for number in range(deadly):
        shutil.copyfile(there[0], killers / f"{2 * number:03d}" / "bad-abort.jpg")
    pipeline.DecodeStage = FaultyDecode  # type: ignore[misc]
    settings = configs.load(str(regimes.write(regime, folder / regime)))
    features = sum(one.modality == "image" for one in settings.features.values())
    for _ in range(ROUNDS):
        seconds = []
        for number, path in enumerate((corpus, killers)):
            shutil.rmtree(folder / "out", ignore_errors=True)
            source = settings.source.model_copy(update={"path": str(path)})
            output = settings.output.model_copy(update={"path": str(folder / "out")})
            failures = settings.failures.model_copy(update={"allow_all": True, "max_fraction": 1.0})
            one = settings.model_copy(update={"source": source, "output": output, "failures": failures})
            with fork_server.started(one, "local") as server:
                started = time.perf_counter()
                report = run.extract(run.prepare(one, False, server, "local"), show_progress=False)
                seconds.append(time.perf_counter() - started)
            crashes = report["failures_by_kind"].get("crash", 0)
            assert crashes == number * deadly * features, report["failures_by_kind"]
        alone, together = seconds
        print(f"{regime}, {pictures} pictures: {alone:.1f} s; {together:.1f} s with {deadly} that kill", flush=True)


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("clip", "media"):
        alone, after = of_an_encoder(configs.load(str(regimes.write(name, folder / name))))
        print(f"{name}: {alone:.2f} s for a block, {after:.2f} s after the death of its process", flush=True)
    for regime, pictures in (("clip", 600), ("media", 600), ("images", 2000)):
        of_decoders(folder, regime, pictures)


if __name__ == "__main__":
    main()
