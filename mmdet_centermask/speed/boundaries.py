"""Casts where a tensor crosses from one number format into another.

A network in bfloat16 is float32 at its ends: pictures come in float32, and scores and
boxes leave in it. The casts are hooks on the modules at the border, so that no
``forward`` has to know of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def map_tensors(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """``value`` with ``change`` applied to every floating tensor in its sequences."""
    if isinstance(value, Tensor):
        return change(value) if value.is_floating_point() else value
    if type(value) in (tuple, list):
        return type(value)(map_tensors(change, item) for item in value)
    return value


def enter_as(
    module: nn.Module, dtype: torch.dtype, layout: torch.memory_format
) -> None:
    """Hand ``module`` its positional inputs as ``dtype``, maps in ``layout``."""

    def change(x: Tensor) -> Tensor:
        return x.to(dtype, memory_format=layout) if x.dim() == 4 else x.to(dtype)

    module.register_forward_pre_hook(lambda _, args: map_tensors(change, args))


def leave_as(module: nn.Module, dtype: torch.dtype) -> None:
    """Hand on the outputs of ``module`` as ``dtype``."""
    module.register_forward_hook(
        lambda _, args, out: map_tensors(lambda x: x.to(dtype), out)
    )
