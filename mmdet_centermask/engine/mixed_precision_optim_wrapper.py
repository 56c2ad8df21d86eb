"""Mixed precision wherever training runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmdet.registry import OPTIM_WRAPPERS
from mmengine.device import get_device
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import nn

from ..speed.kept_memory import keep_freed_memory
from ..speed.separable_roi_extractor import use_separable_pooling
from .narrow_maps import widen_narrow_maps

BFLOAT16 = ('bfloat16', torch.bfloat16)
# Its place before torch 2.3.
GradScaler = getattr(torch.amp, 'GradScaler', torch.cuda.amp.GradScaler)


@OPTIM_WRAPPERS.register_module()
class MixedPrecisionOptimWrapper(AmpOptimWrapper):
    """Stock ``AmpOptimWrapper`` that also runs on a CPU.

    There it computes in bfloat16, the one type that autocast has for CPUs. bfloat16
    has the range of float32, so gradients need no loss scale. Memory freed by a step
    is kept for the next, up to 2 GB.

    Args:
        loss_scale: As in the stock wrapper; of no effect on a CPU.
        dtype: As in the stock wrapper. None is float16 on a GPU, bfloat16 on a CPU.
        kwargs: The other arguments of the stock wrapper.

    Raises:
        ValueError: Another ``dtype`` than bfloat16 is asked of a CPU.
    """

    def __init__(
        self,
        loss_scale: str | float | dict = 'dynamic',
        dtype: str | torch.dtype | None = None,
        **kwargs,
    ) -> None:
        if get_device() != 'cpu':
            super().__init__(loss_scale=loss_scale, dtype=dtype, **kwargs)
            return
        if dtype is not None and dtype not in BFLOAT16:
            raise ValueError(
                f'MixedPrecisionOptimWrapper: dtype={dtype!r} on a CPU, which has only '
                "'bfloat16'"
            )
        # Past the stock initialiser, whose first line refuses a CPU.
        OptimWrapper.__init__(self, **kwargs)
        self._scale_update_param = None
        self.loss_scaler = GradScaler(enabled=False)
        self.cast_dtype = torch.bfloat16
        self._mended: nn.Module | None = None

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast, and the contexts of the stock wrapper."""
        if get_device() == 'cpu' and self._mended is not model:
            widen_narrow_maps(model)
            # mmcv's knows float32 alone, and its backward pass has one thread.
            use_separable_pooling(model)
            keep_freed_memory()
            self._mended = model
        with super().optim_context(model):
            yield
