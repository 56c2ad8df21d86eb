"""Batch norm in eval mode is a scale and a shift: fold it into the conv before."""

from __future__ import annotations

from copy import deepcopy

from mmcv.cnn.utils import fuse_conv_bn
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def fold_norms(module: nn.Module) -> int:
    """Fold every batch norm that directly follows a conv, in place.

    Args:
        module: In eval mode; the norms keep running statistics.

    Returns:
        How many were folded.
    """
    before = count_norms(module)
    unshare_convs(module)
    fuse_conv_bn(module)
    return before - count_norms(module)


def unshare_convs(module: nn.Module) -> None:
    """Give every user of a shared conv one of its own.

    RTMDet's heads use one conv on all levels, each with a norm of its own. Folded
    in place, the norms of all levels would pile up in that conv.
    """
    seen: set[nn.Module] = set()
    for _, parent in list(module.named_modules(remove_duplicate=False)):
        for name, child in list(parent.named_children()):
            if not isinstance(child, nn.Conv2d):
                continue
            if child in seen:
                setattr(parent, name, deepcopy(child))
            seen.add(child)


def count_norms(module: nn.Module) -> int:
    """Number of batch norm layers; a shared one counts once."""
    return sum(isinstance(m, _BatchNorm) for m in module.modules())
