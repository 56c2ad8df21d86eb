"""Parameters and FLOPs of a detector as it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def parameters_of(model: nn.Module) -> int:
    """Everything that is learnt or was learnt elsewhere; running statistics are not."""
    return sum(p.numel() for p in model.parameters())


@torch.no_grad()
def flops_of(predict: Callable[[], Any]) -> int:
    """FLOPs of one call: of convolutions and matrix products, pasting included.

    A multiply-add is one, as in MMDetection's ``get_flops.py``. mmcv's own operators,
    such as deformable convolutions, are not counted.
    """
    with FlopCounterMode(display=False) as counter:
        predict()
    return counter.get_total_flops() // 2
