"""RoI masks into the picture: dense, or run-length encoded crop by crop.

Shape shorthand: ``n`` instances, ``h w`` of an RoI mask (28), ``H W`` of the
picture.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import (
    BYTES_PER_FLOAT,
    GPU_MEM_LIMIT,
    _do_paste_mask,
)
from pycocotools import mask as coco_mask
from torch import Tensor

from .rle_masks import RLEMasks


def paste_dense(
    probabilities: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float
) -> Tensor:
    """Stretch each mask over its box and threshold it.

    The numbers are those of the stock mask heads, whose sampling is used.

    Args:
        probabilities: ``(n, h, w)``.
        boxes: ``(n, 4)`` in the picture's pixels.
        size: ``(H, W)``.
        threshold: A pixel belongs to the mask from this probability on.

    Returns:
        ``(n, H, W)`` bool.
    """
    height, width = size
    on_cpu = boxes.device.type == 'cpu'
    # A CPU is quickest one by one, each in its crop. A GPU takes whole pictures,
    # as many as the memory that mmdet grants to pasting holds.
    picture_bytes = height * width * BYTES_PER_FLOAT
    chunk = 1 if on_cpu else max(1, math.floor(GPU_MEM_LIMIT / picture_bytes))
    masks = torch.zeros(
        (len(boxes), height, width), dtype=torch.bool, device=boxes.device
    )
    for start in range(0, len(boxes), chunk):
        rows = slice(start, start + chunk)
        pasted, where = _do_paste_mask(
            probabilities[rows, None], boxes[rows], height, width, skip_empty=on_cpu
        )
        crop = (rows, *where)
        masks[crop] = pasted >= threshold
    return masks


def paste_rle(
    probabilities: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float
) -> RLEMasks:
    """:func:`paste_dense`, with one crop in memory at a time."""
    height, width = size
    masks = []
    for probability, box in zip(probabilities, boxes, strict=True):
        crop, (rows, columns) = _do_paste_mask(
            probability[None, None], box[None], height, width, skip_empty=True
        )
        corner = (int(rows.start), int(columns.start))
        masks.append(rle_of_crop((crop[0] >= threshold).cpu().numpy(), corner, size))
    return RLEMasks(masks, size)


def rle_of_crop(
    crop: np.ndarray, corner: tuple[int, int], size: tuple[int, int]
) -> dict:
    """COCO's RLE of a picture that is empty but for a crop.

    COCO counts runs down the columns, from the left. Only the crop is looked at.

    Args:
        crop: Bool, inside the picture.
        corner: Row and column of the crop's first pixel.
        size: ``(H, W)``.

    Returns:
        ``dict(size=[H, W], counts=bytes)``.
    """
    height, width = size
    # With an empty row on either side, runs begin and end within a column.
    column, edge = np.nonzero(np.diff(np.pad(crop.T, ((0, 0), (1, 1))), axis=1))
    edges = (corner[1] + column) * height + corner[0] + edge
    # A run that reaches the bottom goes on at the top of the next column.
    ends, starts = edges[1::2], edges[::2]
    seams = np.flatnonzero(ends[:-1] == starts[1:])
    edges = np.delete(edges, np.concatenate([2 * seams + 1, 2 * seams + 2]))
    if not len(edges) or edges[-1] < height * width:
        edges = np.append(edges, height * width)
    counts = np.diff(edges, prepend=0).tolist()
    plain = dict(size=[height, width], counts=counts)
    return coco_mask.frPyObjects(plain, height, width)
