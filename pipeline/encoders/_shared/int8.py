"""Linear layers in int8 on the CPU: weights are quantised once, activations at each call, with one scale per row.

``torch.ao.quantization.quantize_dynamic`` has one scale for the whole tensor instead. With one per row, the values of a
row do not depend on the other rows of the batch, and an outlier reduces the precision of its own row only.
"""

from __future__ import annotations

import torch
from torch import nn

_INT8_MAX = 127.0
_CHUNK_ROWS = 256
"""Rows that are computed at a time, so that intermediate values stay in the CPU's cache."""


class Int8Linear(nn.Module):
    """Replaces an ``nn.Linear``: float32 [..., in] -> float32 [..., out], with the matrix product in int8."""

    quantised: torch.Tensor  # [in, out] int8
    scale: torch.Tensor  # [out] float32
    bias: torch.Tensor | None  # [out] float32

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale = _scale(weight)
        self.register_buffer("quantised", _quantised(weight, scale).t().contiguous())
        self.register_buffer("scale", scale[:, 0].contiguous())
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())
        self.in_features, self.out_features = linear.in_features, linear.out_features

    @property
    def weight(self) -> torch.Tensor:
        """The dequantised weight [out, in], float32. Some models convert their input to the dtype of this weight."""
        return self.quantised.t() * self.scale[:, None]

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        rows = values.reshape(-1, self.in_features).float()
        out = torch.empty(len(rows), self.out_features)
        for start in range(0, len(rows), _CHUNK_ROWS):
            part, into = rows[start : start + _CHUNK_ROWS], out[start : start + _CHUNK_ROWS]
            scale = _scale(part)
            torch.mul(torch._int_mm(_quantised(part, scale), self.quantised), self.scale, out=into)
            if self.bias is None:
                into.mul_(scale)
            else:
                torch.addcmul(self.bias, into, scale, out=into)
        return out.view(*values.shape[:-1], self.out_features)


def _scale(rows: torch.Tensor) -> torch.Tensor:
    """One scale per row: [N, K] -> [N, 1]."""
    return rows.abs().amax(-1, keepdim=True).clamp_(min=1e-12).div_(_INT8_MAX)


def _quantised(rows: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return rows.div(scale).round_().to(torch.int8)


def is_supported() -> bool:
    """True if oneDNN, which computes the product, uses AVX512-VNNI in this process.

    ``ONEDNN_MAX_CPU_ISA`` can turn the instructions off on a CPU that has them. Products of 8-bit values then
    saturate at 16 bits and are wrong. PyTorch reports only whether oneDNN may use bfloat16, which needs AVX-512 too.
    """
    if not torch._C._has_mkldnn or not torch.cpu._is_vnni_supported():
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def quantise(model: nn.Module) -> nn.Module:
    """Replaces every ``nn.Linear`` of ``model`` by an ``Int8Linear``, in place. Subclasses of it are not replaced."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Linear:
                setattr(module, name, Int8Linear(child))
    return model
