"""RoIAlign as two small matrix products.

A sample of RoIAlign is bilinear, its samples form a grid, and a bin is their mean:
all three are products of something in y and something in x. So the bins of an RoI are
``Y @ map @ X^T`` with one interpolation matrix for each axis, read off the map where
the RoI lies. That runs in any number format, takes maps in channels_last order and
leaves all heavy work to matrix multiplication. mmcv's CPU operator computes the same
in float32, channels first, one channel after the other.

Shape shorthand: ``n`` RoIs, ``C`` channels, ``H W`` of a map, ``p q`` of the bins.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from ..models.float32 import float32_island


def axis_weights(
    start: Tensor, length: Tensor, bins: int, size: int, sampling_ratio: int
) -> Tensor:
    """Interpolation matrices ``(n, bins, size)`` of one axis.

    Args:
        start: ``(n,)`` where the RoIs begin, in pixels of the map, the centre of the
            first pixel at 0.
        length: ``(n,)`` of the RoIs in pixels.
        bins: Bins along this axis.
        size: Pixels of the map along this axis.
        sampling_ratio: Samples in a bin; 0 takes one for each pixel begun.

    Returns:
        float32; row ``b`` holds what each pixel contributes to bin ``b``. Samples
        beyond a pixel's width outside of the map count as zeros, like mmcv's.
    """
    bin_length = length / bins
    counts = (
        torch.full_like(length, sampling_ratio)
        if sampling_ratio > 0
        else bin_length.ceil().clamp(min=0)
    )
    most = max(int(counts.max()), 1) if len(counts) else 1
    sample = torch.arange(most, device=start.device) + 0.5
    within = sample[None] / counts.clamp(min=1)[:, None]  # (n, most), of a bin
    bin_number = torch.arange(bins, device=start.device)
    at = start[:, None, None] + bin_length[:, None, None] * (
        bin_number[None, :, None] + within[:, None, :]
    )  # (n, bins, most)
    counted = (sample[None] < counts[:, None])[:, None] & (at >= -1) & (at <= size)
    at = at.clamp(0, size - 1)
    low = at.floor()
    high_share = (at - low) * counted
    low_share = counted.to(at) - high_share
    low = low.long()
    high = (low + 1).clamp(max=size - 1)
    weights = start.new_zeros((len(start), bins, size))
    weights.scatter_add_(2, low, low_share)
    weights.scatter_add_(2, high, high_share)
    return weights / counts.clamp(min=1)[:, None, None]


def separable_roi_align(
    feat: Tensor,
    rois: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
) -> Tensor:
    """RoIAlign with half-pixel alignment, averaging.

    Args:
        feat: ``(N, C, H, W)``, quickest in channels_last order.
        rois: ``(n, 5)`` float32: index in the batch, x1, y1, x2, y2 in pixels of the
            network's input.
        output_size: ``(p, q)``.
        spatial_scale: Pixels of the map per pixel of the input.
        sampling_ratio: Samples in a bin along an axis; 0 adapts.

    Returns:
        ``(n, C, p, q)`` in the dtype of ``feat`` and channels_last order.
    """
    height, width = feat.shape[-2:]
    corners = rois[:, 1:] * spatial_scale - 0.5
    starts, lengths = corners[:, :2], corners[:, 2:] - corners[:, :2]
    rows = axis_weights(
        starts[:, 1], lengths[:, 1], output_size[0], height, sampling_ratio
    ).to(feat)
    columns = axis_weights(
        starts[:, 0], lengths[:, 0], output_size[1], width, sampling_ratio
    ).to(feat)
    # Pixels that the samples of an RoI can touch.
    limits = corners.new_tensor([width, height, width, height])
    first = corners[:, :2].floor().clamp(min=0).minimum(limits[:2] - 1)
    last = (corners[:, 2:].floor() + 2).maximum(first + 1).minimum(limits[2:])
    crops = torch.cat([rois[:, :1], first, last], dim=1).int().tolist()
    with float32_island(feat.device):  # the types are chosen here
        return SeparableProducts.apply(feat, rows, columns, crops)


class SeparableProducts(Function):
    """``rows @ crop @ columns^T`` of each RoI, and its gradient in the map.

    Slices of a map each have a gradient of the whole map's size to autograd; here all
    are added up in one, in float32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        feat: Tensor,
        rows: Tensor,
        columns: Tensor,
        crops: list[tuple[int, ...]],
    ) -> Tensor:
        """
        Args:
            ctx: Of autograd.
            feat: ``(N, C, H, W)``.
            rows: ``(n, p, H)`` of :func:`axis_weights`, like ``feat``.
            columns: ``(n, q, W)``, the same.
            crops: Index in the batch, x1, y1, x2, y2 of what each RoI can touch.

        Returns:
            ``(n, C, p, q)`` in channels_last order.
        """
        ctx.save_for_backward(rows, columns)
        ctx.crops, ctx.shape = crops, feat.shape
        maps = feat.permute(0, 2, 3, 1)
        height, width = rows.shape[1], columns.shape[1]
        pooled = feat.new_empty((len(crops), height, width, feat.shape[1]))
        for i, (batch, x1, y1, x2, y2) in enumerate(crops):
            crop = maps[batch, y1:y2, x1:x2]
            across = torch.matmul(columns[i, :, x1:x2], crop)  # (h, q, C)
            out = pooled[i].view(height, -1)
            torch.mm(rows[i, :, y1:y2], across.flatten(1), out=out)
        return pooled.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        """Both products transposed."""
        rows, columns = ctx.saved_tensors
        batch_size, channels, *size = ctx.shape
        grads = grad.permute(0, 2, 3, 1).contiguous().flatten(2)  # (n, p, q C)
        total = rows.new_zeros((batch_size, *size, channels), dtype=torch.float32)
        for i, (batch, x1, y1, x2, y2) in enumerate(ctx.crops):
            across = torch.mm(rows[i, :, y1:y2].t(), grads[i])
            across = across.view(y2 - y1, -1, channels)  # (h, q, C)
            total[batch, y1:y2, x1:x2] += columns[i, :, x1:x2].t() @ across
        return total.permute(0, 3, 1, 2).to(grad.dtype), None, None, None
