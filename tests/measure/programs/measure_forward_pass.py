"""Prints what one forward pass takes beyond the model, in GiB: MODEL SECONDS."""

import sys
from pathlib import Path

import torch
import transformers


def peak_gib():
    (line,) = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM")]
    return int(line.split()[1]) / 2**20


name, seconds = sys.argv[1], int(sys.argv[2])
model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")()).eval()
before = peak_gib()
with torch.inference_mode():
    model(torch.randn(1, 16_000 * seconds))
print(f"{peak_gib() - before:.2f}")
