"""Linear layers in int8 on the CPU: weights quantised once, activations at each call, one scale a row of them.

A scale a row, not one of the whole tensor as ``torch.ao.quantization.quantize_dynamic`` takes: so a row's values do not
depend on the rows beside it, and an outlier costs only its own row.
"""

from __future__ import annotations

import torch
from torch import nn

_LARGEST = 127.0
_ROWS = 256
"""Rows at a time: what is made of them on the way stays in the cache."""


class Int8Linear(nn.Module):
    """An ``nn.Linear`` [..., in] -> [..., out] of float32, its product in int8."""

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
        """[out, in] float32: some models bring their input to the dtype of a layer's weight."""
        return self.quantised.t() * self.scale[:, None]

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        rows = values.reshape(-1, self.in_features).float()
        out = torch.empty(len(rows), self.out_features)
        for start in range(0, len(rows), _ROWS):
            part, into = rows[start : start + _ROWS], out[start : start + _ROWS]
            scale = _scale(part)
            torch.mul(torch._int_mm(_quantised(part, scale), self.quantised), self.scale, out=into)
            if self.bias is None:
                into.mul_(scale)
            else:
                torch.addcmul(self.bias, into, scale, out=into)
        return out.view(*values.shape[:-1], self.out_features)


def _scale(rows: torch.Tensor) -> torch.Tensor:
    """[N, K] -> [N, 1]"""
    return rows.abs().amax(-1, keepdim=True).clamp_(min=1e-12).div_(_LARGEST)


def _quantised(rows: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return rows.div(scale).round_().to(torch.int8)


def is_supported() -> bool:
    """Whether oneDNN, which computes the product, uses AVX512-VNNI here.

    The CPU may have the instructions and ``ONEDNN_MAX_CPU_ISA`` turn them off: products of 8-bit values then
    saturate at 16 bits, and are wrong. Of what oneDNN may use, PyTorch reports only bfloat16, which needs AVX-512 too.
    """
    if not torch._C._has_mkldnn or not torch.cpu._is_vnni_supported():
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def quantise(model: nn.Module) -> nn.Module:
    """``model`` with every ``nn.Linear`` in int8; what is no plain one stays as it is."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Linear:
                setattr(module, name, Int8Linear(child))
    return model
