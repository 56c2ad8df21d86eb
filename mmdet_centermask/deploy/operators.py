"""The two steps of the network that are no ordinary tensor arithmetic.

`torch.export` cannot look into mmcv's compiled functions. As operators of their own
they appear in the exported graph by name, with known shapes, and each runtime puts
its own in their place: ONNX has `RoiAlign` and `NonMaxSuppression`.

Shape shorthand: ``N`` pictures, ``n`` rows, ``S`` candidates of each picture.
"""

from __future__ import annotations

import mmcv.ops
import torch
from torch import Tensor


@torch.library.custom_op('mmdet_centermask::roi_align', mutates_args=())
def roi_align(
    features: Tensor, rois: Tensor, size: int, spatial_scale: float, sampling_ratio: int
) -> Tensor:
    """mmcv's RoIAlign, averaging and aligned.

    Args:
        features: ``(N, C, H, W)``.
        rois: ``(n, 5)``: index of the picture, x1, y1, x2, y2 in network-input pixels.
        size: Of the square output.
        spatial_scale: Of the map, 1 / stride.
        sampling_ratio: Samples along each side of a bin; 0 as many as it has pixels.

    Returns:
        ``(n, C, size, size)``, 0 where an RoI has no area.
    """
    return mmcv.ops.roi_align(
        features.contiguous(), rois, size, spatial_scale, sampling_ratio, 'avg', True
    )


@roi_align.register_fake
def _(
    features: Tensor, rois: Tensor, size: int, spatial_scale: float, sampling_ratio: int
) -> Tensor:
    return features.new_empty(rois.shape[0], features.shape[1], size, size)


@torch.library.custom_op('mmdet_centermask::nms', mutates_args=())
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, limit: int) -> Tensor:
    """mmcv's non-maximum suppression of each picture.

    Args:
        boxes: ``(N, S, 4)``.
        scores: ``(N, S)``; a score of 0 marks a row that is no candidate.
        iou_threshold: A box that overlaps a better one by more is dropped.
        limit: At most this many boxes are kept in each picture, the best.

    Returns:
        ``(n, 2)`` int64: index of the picture and of the candidate, picture by
        picture, best first.
    """
    chosen = []
    for picture, (own_boxes, own_scores) in enumerate(zip(boxes, scores, strict=True)):
        rows = own_scores.nonzero().squeeze(1)
        if len(rows):
            _, kept = mmcv.ops.nms(own_boxes[rows], own_scores[rows], iou_threshold)
            rows = rows[kept[:limit]]
        chosen.append(torch.stack([torch.full_like(rows, picture), rows], dim=1))
    return torch.cat(chosen)


@nms.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float, limit: int) -> Tensor:
    count = torch.library.get_ctx().new_dynamic_size()
    return scores.new_empty((count, 2), dtype=torch.int64)
