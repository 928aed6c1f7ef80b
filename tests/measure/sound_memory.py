"""Memory of one forward pass over a long sound, with base-size models of random weights.

python -m tests.measure.sound_memory

Prints for each model and length what the pass takes beyond the model. It takes minutes.
"""

from __future__ import annotations

from tests.support import bounded

LENGTHS = {"Wav2Vec2": (100, 300), "WavLM": (60, 100)}


def main() -> None:
    for model, lengths in LENGTHS.items():
        for seconds in lengths:
            done = bounded.run("tests.measure.programs.measure_forward_pass", model, seconds, timeout=900)
            print(f"{model}, {seconds} s: {done.out} GiB", flush=True)


if __name__ == "__main__":
    main()
