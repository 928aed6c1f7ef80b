"""What runs leave behind: `python -m tests.measure.leaks [RUNS]`.

Runs a small extraction on the engine ``local`` again and again in this process, with pictures, sounds and clips, some
of which are damaged, and a fork server of its own for each. Before and after them it counts this process's children,
threads, open files, temporary files and memory, and the shared memory of the machine.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import threading
from pathlib import Path

import psutil
from PIL import Image

from pipeline import run
from pipeline.run import fork_server
from tests.stages.media_fixtures import AUDIO, IMAGE, VIDEO, config, write_clip, write_tone

RUNS = 100
WARM_UP = 5


def corpus(folder: Path) -> None:
    folder.mkdir()
    for i in range(20):
        Image.new("RGB", (64, 48), (i, 0, 0)).save(folder / f"{i:02d}.png")
    for i in range(4):
        write_clip(folder / f"clip{i}.mp4", 2.0, sound_s=2.0)
        write_tone(folder / f"tone{i}.wav", 3.0)
    for name in ("bad.png", "bad.mp4", "bad.wav"):
        (folder / name).write_bytes(b"RIFF....WAVE")


def extract(folder: Path, number: int) -> None:
    features = {"i": IMAGE, "a": AUDIO, "v": VIDEO}
    settings = config(folder / "in", features, window={"length_s": 1}, compute={"block_rows": 8})
    output = settings.output.model_copy(update={"path": str(folder / f"out{number}")})
    settings = settings.model_copy(update={"output": output})
    with fork_server.started(settings, "local") as server:
        report = run.extract(run.prepare(settings, False, server, "local"), show_progress=False)
    assert report["rows_written"] > 20, report


def counted() -> dict[str, int]:
    """What there is now."""
    gc.collect()
    return {
        "children": len(psutil.Process().children(recursive=True)),
        "threads": threading.active_count(),
        "open files": len(os.listdir("/proc/self/fd")),
        "files in /dev/shm": len(os.listdir("/dev/shm")),
        "temporary files": len(os.listdir(tempfile.gettempdir())),
        "resident MB": psutil.Process().memory_info().rss >> 20,
    }


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    with tempfile.TemporaryDirectory(prefix="leaks-") as name:
        folder = Path(name)
        corpus(folder / "in")
        (folder / "tmp").mkdir()
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder / "tmp")
        for number in range(WARM_UP):
            extract(folder, number)
        before = counted()
        for number in range(WARM_UP, WARM_UP + runs):
            extract(folder, number)
        after = counted()
    for what, count in before.items():
        print(f"{what}: {count} before, {after[what]} after {runs} runs")


if __name__ == "__main__":
    main()
