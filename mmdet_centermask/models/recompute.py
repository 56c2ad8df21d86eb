"""Activation checkpointing that leaves running statistics alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recompute(
    module: nn.Module, function: Callable[[Tensor], Tensor], x: Tensor
) -> Tensor:
    """``function(x)``, whose intermediate results the backward pass computes again.

    Args:
        module: Holds the layers of ``function``. Without this care, each of its batch
            norms would move its running statistics twice in every step.
        function: Computes with ``module``.
        x: Its input.
    """
    return checkpoint(
        function,
        x,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), statistics_kept(module)),
    )


@contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """Let batch norms compute with the batch, and not move their running statistics.

    They still write them, with a momentum of 0: the backward pass counts the tensors
    that a layer keeps, and a norm without statistics would keep fewer.
    """
    norms: list[Any] = [
        m
        for m in module.modules()
        if isinstance(m, _BatchNorm) and m.training and m.track_running_stats
    ]
    before = [(norm, norm.momentum, norm.num_batches_tracked.item()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, batches in before:
            norm.momentum = momentum
            norm.num_batches_tracked.fill_(batches)
