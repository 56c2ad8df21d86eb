"""Deformable conv by bilinear sampling, for runtimes that have no such operator.

ONNX has `DeformConv` since opset 19, but OpenVINO cannot read it; `GridSample` is
everywhere.
"""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from mmcv.ops import DeformConv2dPack, ModulatedDeformConv2dPack
from mmdet.models.detectors import BaseDetector
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from ..experiment import ExperimentError
from ..models import VoVNet

DEFORMABLE = (DeformConv2dPack, ModulatedDeformConv2dPack)


class GridSampledConv(nn.Module):
    """What a deformable conv of mmcv computes, from its own weights.

    Args:
        conv: ``DCN`` or ``DCNv2`` with one group.

    Shape:
        As the conv.
    """

    def __init__(self, conv: DeformConv2dPack | ModulatedDeformConv2dPack) -> None:
        super().__init__()
        if (conv.groups, conv.deform_groups) != (1, 1):
            raise ExperimentError(
                f'dcn with groups={conv.groups} and deform_groups={conv.deform_groups} '
                'cannot be exported, only 1 and 1 can'
            )
        self.conv_offset, self.weight = conv.conv_offset, conv.weight
        self.bias = getattr(conv, 'bias', None)  # mmcv's DCN has none
        self.kernel_size = _pair(conv.kernel_size)
        self.stride = _pair(conv.stride)
        self.padding = _pair(conv.padding)
        self.dilation = _pair(conv.dilation)

    def forward(self, x: Tensor) -> Tensor:
        taps = self.kernel_size[0] * self.kernel_size[1]
        offsets = self.conv_offset(x)
        batch, _, height, width = offsets.shape
        down, right = offsets[:, : 2 * taps].unflatten(1, (taps, 2)).unbind(2)
        rows, columns = self._tap_positions(height, width, x)
        # GridSample counts from -1 to 1 between the outer edges of the map.
        grid = torch.stack(
            [
                (2 * (columns + right) + 1) / x.shape[3] - 1,
                (2 * (rows + down) + 1) / x.shape[2] - 1,
            ],
            dim=-1,
        )
        samples = F.grid_sample(
            x, grid.flatten(1, 2), padding_mode='zeros', align_corners=False
        ).unflatten(2, (taps, height))
        if offsets.shape[1] > 2 * taps:  # DCNv2: a gate for each tap
            samples = samples * offsets[:, 2 * taps :].sigmoid().unsqueeze(1)
        return F.conv2d(
            samples.flatten(1, 2), self.weight.flatten(1)[..., None, None], self.bias
        )

    def _tap_positions(
        self, height: int, width: int, like: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Row ``(taps, H, 1)`` and column ``(taps, 1, W)`` that each tap reads."""

        def along(axis: int, length: int, taps: Tensor) -> Tensor:
            steps = torch.arange(length, device=like.device) * self.stride[axis]
            return (steps - self.padding[axis] + taps.unsqueeze(1)).to(like)

        across = self.kernel_size[1]
        taps = torch.arange(self.kernel_size[0] * across, device=like.device)
        rows = along(0, height, taps // across * self.dilation[0])
        columns = along(1, width, taps % across * self.dilation[1])
        return rows.unsqueeze(2), columns.unsqueeze(1)


def with_grid_sampled_convs(model: BaseDetector) -> BaseDetector:
    """``model``, or a copy of it in which no deformable conv is left."""
    if not any(isinstance(module, DEFORMABLE) for module in model.modules()):
        return model
    model = deepcopy(model)
    for parent in list(model.modules()):
        if isinstance(parent, VoVNet):
            parent.smallest_side = 0  # a limit of mmcv's DCN
        for name, child in list(parent.named_children()):
            if isinstance(child, DEFORMABLE):
                setattr(parent, name, GridSampledConv(child))
    return model
