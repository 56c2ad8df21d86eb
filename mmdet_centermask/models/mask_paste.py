"""RoI masks into the picture: as bitmaps, or run-length encoded crop by crop.

Stretching a mask over its box is separable: the crop is ``Y @ mask @ X.T``, where a
row of ``Y`` holds the two weights with which a row of pixels lies between two rows of
the mask. On the CPU that is done in NumPy, whose short calls cost least.

Shape shorthand: ``n`` instances, ``h w`` of an RoI mask (28), ``h' w'`` of its crop,
``H W`` of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import (
    BYTES_PER_FLOAT,
    GPU_MEM_LIMIT,
    _do_paste_mask,
)
from pycocotools import mask as coco_mask
from torch import Tensor

from .blank_bitmaps import blank_bitmaps
from .rle_masks import RLEMasks

CHUNK = 100  # boxes whose weights are in memory at a time
# Pixels that are computed at a time. They stay in the cache, and the product is too
# small for BLAS to wake its own threads, which would get into the way of PyTorch's.
TILE, TILE_WIDTH = 8192, 256


class StretchedMask(NamedTuple):
    """A mask and what stretches it over its box."""

    mask: np.ndarray
    """``(h, w)`` probabilities."""

    down: np.ndarray
    """``(h', h)`` weights of the mask's rows in each row of the crop."""

    across: np.ndarray
    """``(w', w)`` weights of the mask's columns in each column of the crop."""

    top: int
    left: int

    def at_least(self, threshold: float, out: np.ndarray) -> None:
        """Write to ``out``, ``(h', w')`` bool, which pixels reach ``threshold``."""
        for x in range(0, len(self.across), TILE_WIDTH):
            columns = slice(x, x + TILE_WIDTH)
            sides = self.mask @ self.across[columns].T
            step = TILE // sides.shape[1]
            for y in range(0, len(self.down), step):
                rows = slice(y, y + step)
                values = self.down[rows] @ sides
                np.greater_equal(values, threshold, out=out[rows, columns])


def paste_dense(
    probabilities: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float
) -> Tensor:
    """Stretch each mask over its box and threshold it.

    Pixel for pixel what the stock mask heads answer, but for pixels whose probability
    is within float32's rounding of the threshold.

    Args:
        probabilities: ``(n, h, w)``.
        boxes: ``(n, 4)`` in the picture's pixels.
        size: ``(H, W)``.
        threshold: A pixel belongs to the mask from this probability on.

    Returns:
        ``(n, H, W)`` bool.
    """
    if boxes.device.type != 'cpu':
        return _paste_whole_pictures(probabilities, boxes, size, threshold)
    boxes = boxes.float()
    _, y1, _, y2 = boxes.numpy(force=True).T
    masks = blank_bitmaps((len(boxes), *size), *pixels_of(y1, y2, size[0]))
    for mask, crop in zip(
        masks.numpy(), stretch(probabilities, boxes, size), strict=True
    ):
        bottom, right = crop.top + len(crop.down), crop.left + len(crop.across)
        crop.at_least(threshold, out=mask[crop.top : bottom, crop.left : right])
    return masks


def paste_rle(
    probabilities: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float
) -> RLEMasks:
    """:func:`paste_dense`, with one crop in memory at a time."""
    masks = []
    # COCO's runs go down the columns, which are the rows of the transposed picture.
    boxes = boxes.float()[:, [1, 0, 3, 2]]
    for crop in stretch(probabilities.mT, boxes, size[::-1]):
        columns = np.empty((len(crop.down), len(crop.across)), bool)
        crop.at_least(threshold, out=columns)
        masks.append(rle_of_crop(columns.T, (crop.left, crop.top), size))
    return RLEMasks(masks, size)


def stretch(
    probabilities: Tensor, boxes: Tensor, size: tuple[int, int]
) -> Iterator[StretchedMask]:
    """Stretch each mask over its box, bilinearly, within the picture.

    Args:
        probabilities: ``(n, h, w)``.
        boxes: ``(n, 4)`` in the picture's pixels, float32.
        size: ``(H, W)``.

    Yields:
        The crop of each box. It is empty where a box lies outside of the picture, and
        reaches no threshold above 0 where a box has no width or height.
    """
    for some, some_boxes in zip(
        probabilities.split(CHUNK), boxes.split(CHUNK), strict=True
    ):
        masks = some.float().numpy(force=True)
        x1, y1, x2, y2 = some_boxes.numpy(force=True).T
        rows = weights_along(y1, y2, masks.shape[1], size[0])
        columns = weights_along(x1, x2, masks.shape[2], size[1])
        for mask, (top, down), (left, across) in zip(masks, rows, columns, strict=True):
            yield StretchedMask(mask, down, across, top, left)


def pixels_of(
    low: np.ndarray, high: np.ndarray, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """First pixel of each crop and the one after its last, along one axis.

    As in mmdet, a pixel around the box belongs to the crop.

    Args:
        low: ``(n,)`` lower edges of the boxes.
        high: ``(n,)`` upper edges.
        limit: Pixels of the picture along this axis.
    """
    first = (np.floor(low) - 1).clip(0, limit).astype(np.int64)
    last = (np.ceil(high) + 1).clip(0, limit).astype(np.int64)
    return first, np.maximum(first, last)


def weights_along(
    low: np.ndarray, high: np.ndarray, points: int, limit: int
) -> Iterator[tuple[int, np.ndarray]]:
    """How the pixels of each box mix the points of its mask, along one axis.

    The position of a pixel among the points is computed by the float32 steps of
    mmdet's paste and PyTorch's ``grid_sample``. A point's weight falls linearly to 0
    at its neighbours; beyond the first and the last point there is nothing.

    Args:
        low: ``(n,)`` lower edges of the boxes, float32.
        high: ``(n,)`` upper edges.
        points: Of a mask along this axis.
        limit: Pixels of the picture along this axis.

    Yields:
        For each box its first pixel and the weights ``(pixels, points)``, float32.
    """
    first, last = pixels_of(low, high, limit)
    counts = last - first
    starts = counts.cumsum() - counts
    # All pixels of all boxes in one row; `box` says whose each is.
    box = np.repeat(np.arange(len(counts)), counts)
    pixel = (np.arange(len(box)) + (first - starts)[box]).astype(np.float32)
    with np.errstate(divide='ignore', invalid='ignore'):
        within = (pixel + 0.5 - low[box]) / (high - low)[box] * 2 - 1
    position = (within + 1) * (points / 2) - 0.5
    weights = position[:, None] - np.arange(points, dtype=np.float32)
    np.subtract(1, np.abs(weights, out=weights), out=weights)
    np.maximum(weights, 0, out=weights)
    for pixel_0, start, count in zip(first, starts, counts, strict=True):
        yield int(pixel_0), weights[start : start + count]


def _paste_whole_pictures(
    probabilities: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float
) -> Tensor:
    """:func:`paste_dense` on a GPU, which is quicker with whole pictures than crops."""
    height, width = size
    # As many at a time as the memory that mmdet grants to pasting holds.
    picture_bytes = height * width * BYTES_PER_FLOAT
    chunk = max(1, math.floor(GPU_MEM_LIMIT / picture_bytes))
    masks = torch.zeros(
        (len(boxes), height, width), dtype=torch.bool, device=boxes.device
    )
    for start in range(0, len(boxes), chunk):
        rows = slice(start, start + chunk)
        pasted, _ = _do_paste_mask(
            probabilities[rows, None], boxes[rows], height, width, skip_empty=False
        )
        masks[rows] = pasted >= threshold
    return masks


def rle_of_crop(
    crop: np.ndarray, corner: tuple[int, int], size: tuple[int, int]
) -> dict:
    """COCO's RLE of a picture that is empty but for a crop.

    COCO counts runs down the columns, from the left. Only the crop is looked at.

    Args:
        crop: Bool, inside the picture; quickest where its columns lie in one piece.
        corner: Row and column of the crop's first pixel.
        size: ``(H, W)``.

    Returns:
        ``dict(size=[H, W], counts=bytes)``.
    """
    height, width = size
    # An empty row between the columns ends every run, unless the crop is as high as
    # the picture: then runs go on at the top of the next column.
    step = len(crop) + (len(crop) < height)
    line = np.zeros(1 + crop.shape[1] * step + 1, bool)
    line[1:-1].reshape(-1, step)[:, : len(crop)] = crop.T
    column, row = np.divmod(np.flatnonzero(line[1:] != line[:-1]), step)
    edges = (corner[1] + column) * height + corner[0] + row
    if not len(edges) or edges[-1] < height * width:
        edges = np.append(edges, height * width)
    counts = np.diff(edges, prepend=0)
    return coco_mask.frPyObjects(dict(size=list(size), counts=counts), height, width)
