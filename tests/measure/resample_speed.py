"""CPU milliseconds to resample ten seconds of sound: `python -m tests.measure.resample_speed`.

torchaudio, Tessera, and soxr if it is installed (it is no dependency), in turn, one thread; the least of several
rounds. Also the largest difference of Tessera's samples from torchaudio's, with filters computed in double precision.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from pipeline.decoders._shared.resampling import resampled

PAIRS = [(44100, 16000), (48000, 16000), (22050, 16000), (8000, 16000), (32000, 16000), (44100, 48000), (96000, 16000)]
SECONDS, ROUNDS = 10, 9


def measure(rate: int, target: int) -> dict[str, float]:
    """The least milliseconds of each way, and the difference."""
    import torch
    from torchaudio.transforms import Resample

    torch.set_num_threads(1)
    common = math.gcd(rate, target)
    reference = Resample(rate // common, target // common, dtype=torch.float64).float()
    wave = np.random.default_rng(rate).normal(0, 0.1, rate * SECONDS).astype(np.float32)
    ways: dict[str, Callable[[], np.ndarray]] = {
        "torchaudio": lambda: reference(torch.from_numpy(wave)).numpy(),
        "tessera": lambda: resampled(lambda start, stop: wave[start:stop], rate, target, 0, target * SECONDS),
    }
    try:
        import soxr
    except ImportError:
        pass
    else:
        ways |= {f"soxr {quality}": lambda q=quality: soxr.resample(wave, rate, target, q) for quality in ("HQ", "VHQ")}
    least = dict.fromkeys(ways, math.inf)
    for _ in range(ROUNDS):
        for name, way in ways.items():
            started = time.process_time()
            way()
            least[name] = min(least[name], 1e3 * (time.process_time() - started))
    found = ways["tessera"]()
    return {**least, "difference": float(np.abs(found - ways["torchaudio"]()[: len(found)]).max())}


def main() -> None:
    for rate, target in PAIRS:
        found = measure(rate, target)
        difference = found.pop("difference")
        times = ", ".join(f"{name} {ms:.2f} ms" for name, ms in found.items())
        print(f"{rate} -> {target} Hz: {times}; largest difference {difference:.0e}")


if __name__ == "__main__":
    main()
