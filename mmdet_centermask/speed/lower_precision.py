"""Which parts of a detector compute in a short number format, and which must not."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from mmcv.ops import DeformConv2d, ModulatedDeformConv2d
from mmdet.models.dense_heads import AnchorHead
from mmdet.models.dense_heads.anchor_free_head import AnchorFreeHead
from mmdet.models.roi_heads import BaseRoIHead
from mmdet.models.roi_heads.roi_extractors import BaseRoIExtractor
from mmdet.models.seg_heads import PanopticFPNHead
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .boundaries import enter_as, leave_as
from .separable_roi_extractor import SeparableRoIExtractor

# A box side of 300 pixels has steps of two in bfloat16. The convs that give box sides
# and centreness have four channels and one; they cost nothing in float32.
DELICATE_CONVS = ('_reg', 'conv_centerness')
DEFORMABLE = (DeformConv2d, ModulatedDeformConv2d)
# Parts whose forward is made of convs, norms and activations alone.
PLAIN_HEADS = (AnchorHead, AnchorFreeHead, PanopticFPNHead)
ROI_PARTS = ('bbox_head', 'mask_head', 'mask_iou_head')


def lower_precision(detector: nn.Module, dtype: torch.dtype) -> None:
    """Let the network of ``detector`` compute in ``dtype``, in place.

    Backbone, neck, dense heads and RoI heads change over; a part that is not known to
    be safe gets its inputs in float32 and stays. Within a part that changes, box
    regression, deformable convs and RoI pooling of mmcv stay in float32. All maps are
    in channels_last order, whatever ``dtype``.
    """
    layout = torch.channels_last
    for name, part in detector.named_children():
        if name in ('backbone', 'neck'):
            convert(part, dtype)
            enter_as(part, dtype, layout)
        elif isinstance(part, PLAIN_HEADS) and not has_deformable(part):
            convert_head(part, dtype)
        elif isinstance(part, BaseRoIHead):
            for head in roi_parts(part):
                convert_head(head, dtype)
            keep_pooling_exact(part)
        elif name != 'data_preprocessor':
            enter_as(part, torch.float32, torch.contiguous_format)


def convert_head(head: nn.Module, dtype: torch.dtype) -> None:
    """A part whose answers are read as float32."""
    convert(head, dtype)
    enter_as(head, dtype, torch.channels_last)
    leave_as(head, torch.float32)


def convert(part: nn.Module, dtype: torch.dtype) -> None:
    """Parameters of ``part`` to ``dtype``, but for what is delicate."""
    part.to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for name, module in part.named_modules():
        if isinstance(module, DEFORMABLE):
            # mmcv's operator: float32, channels first.
            keep_exact(module, dtype)
        elif name.endswith(DELICATE_CONVS) and isinstance(module, nn.Conv2d):
            module.float()
            enter_as(module, torch.float32, torch.channels_last)
        elif isinstance(module, _BatchNorm):
            module.float()  # running statistics; its input may be short


def keep_exact(module: nn.Module, dtype: torch.dtype) -> None:
    """A float32 island, channels first, within a part that computes in ``dtype``."""
    module.float().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    enter_as(module, torch.float32, torch.contiguous_format)
    leave_as(module, dtype)


def keep_pooling_exact(roi_head: nn.Module) -> None:
    """mmcv's RoI operators know neither bfloat16 nor channels_last order."""
    for module in roi_head.modules():
        if isinstance(module, BaseRoIExtractor) and not isinstance(
            module, SeparableRoIExtractor
        ):
            enter_as(module, torch.float32, torch.contiguous_format)


def roi_parts(roi_head: nn.Module) -> Iterator[nn.Module]:
    """Heads on RoIs; cascades have a list of each."""
    for name in ROI_PARTS:
        part = getattr(roi_head, name, None)
        if isinstance(part, nn.ModuleList):
            yield from part
        elif part is not None:
            yield part


def has_deformable(part: nn.Module) -> bool:
    return any(isinstance(module, DEFORMABLE) for module in part.modules())
