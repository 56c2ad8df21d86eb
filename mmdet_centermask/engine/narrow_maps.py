"""A way around a bug of oneDNN in the bfloat16 gradient of strided convolutions.

On a CPU, the weight gradient of a strided convolution over a map of width 1 holds
whatever was in memory (oneDNN 3.12, torch 2.13; found with P7 of a 64-pixel picture).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..models.float32 import autocast_is_on


def widen_narrow_maps(model: nn.Module) -> None:
    """Give maps of width 1 a second column where a strided convolution reads them.

    The column is zero, as the padding that it takes the place of, so that outputs are
    the same. It is added under autocast on a CPU alone.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and ignores_second_column(module):
            module.register_forward_pre_hook(widen)


def ignores_second_column(conv: nn.Conv2d) -> bool:
    """Whether ``conv`` strides over a map of width 2 as over one of width 1."""
    if conv.stride[1] == 1 or isinstance(conv.padding, str):
        return False
    beside = 2 * conv.padding[1] - conv.dilation[1] * (conv.kernel_size[1] - 1) - 1
    return (1 + beside) // conv.stride[1] == (2 + beside) // conv.stride[1]


def widen(conv: nn.Conv2d, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Forward pre-hook of ``conv``."""
    (x,) = inputs
    if x.shape[-1] > 1 or x.device.type != 'cpu' or not autocast_is_on(x.device):
        return inputs
    return (F.pad(x, (0, 1)),)
