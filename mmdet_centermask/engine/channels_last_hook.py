"""Convolutions in the memory layout that half precision is fast in."""

from __future__ import annotations

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Stores the weights of convolutions channels-last; their outputs follow.

    The values are the same. On a CPU, bfloat16 needs this layout to be fast.
    """

    def before_train(self, runner) -> None:
        """Change the layout, after weights have been loaded."""
        runner.model.to(memory_format=torch.channels_last)
