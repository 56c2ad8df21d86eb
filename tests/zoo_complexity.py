"""Parameters and FLOPs as the metafiles state them, counted without any numbers.

A multiply-add of a convolution or a matrix product is one FLOP, as in MMDetection's
`get_flops.py` (which also counts norms and resizing, 0.2 to 0.3% more here). A
deformable convolution counts as the plain one of its shape and the one that gives its
offsets.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmcv.ops import ModulatedDeformConv2d
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


class PlainConv(nn.Module):
    """Stands in for a deformable conv, which has no implementation without numbers."""

    def __init__(self, conv: ModulatedDeformConv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        self.conv.conv_offset(x)
        return F.conv2d(x, self.conv.weight, None, self.conv.stride, self.conv.padding)


def shapes_of(config: Config) -> nn.Module:
    """The model of a config, without memory for its parameters."""
    init_default_scope('mmdet')
    with torch.device('meta'):
        return MODELS.build(config.model)


@torch.no_grad()
def flops_of(model: nn.Module, width: int, height: int) -> int:
    """FLOPs on one picture, with as many boxes as the config keeps.

    Two-stage detectors count 1000 proposals and 100 masks, as in MMDetection. What
    RTMDet-Ins and CondInst do for each mask is not counted.

    Args:
        model: From :func:`shapes_of`; its deformable convs are replaced.
    """
    _replace_deformable(model.eval())
    dense = model.rpn_head if hasattr(model, 'rpn_head') else model.bbox_head
    with FlopCounterMode(display=False) as counter, torch.device('meta'):
        x = model.extract_feat(torch.empty(1, 3, height, width))
        dense(x[-len(dense.prior_generator.strides) :])
        if hasattr(model, 'semantic_head'):
            model.semantic_head(x)
        if hasattr(model, 'mask_head'):
            model.mask_head.mask_feature_head(x)
        if hasattr(model, 'roi_head'):
            boxes = 100
            if not hasattr(model, 'rpn_head'):
                boxes = model.test_cfg.bbox.max_per_img
            _run_roi_heads(model.roi_head, x[0].shape[1], boxes)
    return counter.get_total_flops() // 2


def _run_roi_heads(roi_head: nn.Module, channels: int, boxes: int) -> None:
    """Each head once; box heads see 7x7 and mask heads 14x14 features."""
    for head in _stages(roi_head, 'bbox_head'):
        head(torch.empty(1000, channels, 7, 7))
    rois = torch.empty(boxes, channels, 14, 14)
    for head in _stages(roi_head, 'mask_head'):
        logits = head(rois)
    for head in _stages(roi_head, 'mask_iou_head'):
        head(rois, logits[:, 0])


def _stages(roi_head: nn.Module, name: str) -> list[nn.Module]:
    """The heads of that name: none, one, or one for each stage of a cascade."""
    found = getattr(roi_head, name, None)
    if isinstance(found, nn.ModuleList):
        return list(found)
    return [] if found is None else [found]


def _replace_deformable(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, ModulatedDeformConv2d):
            setattr(module, name, PlainConv(child))
        else:
            _replace_deformable(child)
