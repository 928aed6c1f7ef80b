"""Memory of one forward pass over a long sound, with base-size models of random weights.

python -m tests.measure.sound_memory

Prints for each model and length what the pass takes beyond the model. It takes minutes.
"""

from __future__ import annotations

from tests.support import bounded

LENGTHS = {"Wav2Vec2": (100, 300), "WavLM": (60, 100)}
PASS = """
import sys
import torch
import transformers

def peak():
    (line,) = [one for one in open("/proc/self/status") if one.startswith("VmHWM")]
    return int(line.split()[1]) / 2**20

model = getattr(transformers, sys.argv[1] + "Model")(getattr(transformers, sys.argv[1] + "Config")()).eval()
before = peak()
with torch.inference_mode():
    model(torch.randn(1, 16_000 * int(sys.argv[2])))
print(f"{peak() - before:.2f}")
"""


def main() -> None:
    for model, lengths in LENGTHS.items():
        for seconds in lengths:
            done = bounded.run(PASS, model, seconds, timeout=900)
            print(f"{model}, {seconds} s: {done.out} GiB", flush=True)


if __name__ == "__main__":
    main()
