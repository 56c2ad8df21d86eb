"""Means over all processes, out of losses that are means over one."""

from __future__ import annotations

import torch
from mmdet.utils import reduce_mean
from mmengine.dist import get_world_size
from torch import Tensor


def process_share(count: int | Tensor, device: torch.device) -> Tensor | float:
    """What this process counts over what a process counts on average.

    Data-parallel training averages the processes' gradients. A loss that is a mean
    over ``count`` items, times this share, gives the mean over the items of all
    processes, as one process with the whole batch has it; the stock FCOS losses are
    built like that. 1.0 in a single process, 0 where nothing was counted anywhere.
    """
    if get_world_size() == 1:
        return 1.0
    own = torch.as_tensor(count, dtype=torch.float32, device=device)
    # Far below 1: one item among many processes.
    return own / reduce_mean(own).clamp(min=1e-6)
