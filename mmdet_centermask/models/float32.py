"""Float32 islands in a network that runs under autocast.

Autocast looks at one operator at a time: it computes convolutions in half precision
and leaves their half-precision outputs to whatever comes next, a sum over a million
locations or a division by a tiny area included.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from ..environment import torch_release


def float32_island(device: torch.device) -> AbstractContextManager:
    """Return a context without autocast; inputs are the caller's to cast.

    Nothing is entered where autocast is off, so that exported graphs hold no trace.
    """
    if autocast_is_on(device):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def autocast_is_on(device: torch.device) -> bool:
    """Whether operators on ``device`` run under autocast here."""
    if torch_release() >= (2, 4):
        # Shapes alone, as FLOPs counters run them, are on 'meta', which has none.
        kind = device.type
        return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    if device.type == 'cpu':
        return torch.is_autocast_cpu_enabled()
    return torch.is_autocast_enabled()


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def run_in_float32(module: nn.Module, x: Tensor) -> Tensor:
    """``module(x)`` without autocast; the output has the type of ``x``."""
    with float32_island(x.device):
        return module(at_least_float32(x)).to(x.dtype)
