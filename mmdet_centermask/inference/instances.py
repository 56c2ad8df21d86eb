"""What is asked of predicted instances, whichever detector and mask format they have.

Instances are mmdet's ``InstanceData`` on the CPU: ``bboxes``, ``labels``, ``scores``,
perhaps ``masks`` (a bool tensor or :class:`RLEMasks`) and ``mask_scores``.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask
from torch import Tensor

from ..models.rle_masks import RLEMask


def scores_of(instances: InstanceData) -> Tensor:
    """``(n,)`` what ranks the instances: ``mask_scores``, or ``scores`` without."""
    return instances.get('mask_scores', instances.scores)


def best_first(instances: InstanceData) -> InstanceData:
    """Sorted by :func:`scores_of`."""
    return instances[scores_of(instances).argsort(descending=True, stable=True)]


def mask_of(instances: InstanceData, number: int) -> np.ndarray:
    """``(H, W)`` uint8, 1 inside the mask of the `number`-th instance."""
    mask: Any = instances.masks[number]
    return mask.to_array() if isinstance(mask, RLEMask) else mask.byte().numpy()


def extent_of(instances: InstanceData, number: int) -> tuple[int, int, int, int]:
    """x, y, width and height of the `number`-th mask; zeros if it is empty."""
    mask: Any = instances.masks[number]
    if isinstance(mask, dict):
        x, y, width, height = (int(side) for side in coco_mask.toBbox(dict(mask)))
        return x, y, width, height
    x, y, width, height = cv2.boundingRect(mask.byte().numpy())
    return x, y, width, height


def rles_of(instances: InstanceData) -> list[dict[str, Any]]:
    """COCO's RLE of each instance, its ``counts`` a str, fit for JSON."""
    rles = []
    for mask in instances.masks:
        if not isinstance(mask, dict):
            mask = coco_mask.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
        size = [int(side) for side in mask['size']]
        rles.append(dict(size=size, counts=mask['counts'].decode()))
    return rles


def xywh_of(instances: InstanceData) -> list[list[float]]:
    """COCO's x, y, width and height of each box, to a thousandth of a pixel."""
    boxes = instances.bboxes.double().numpy()
    boxes = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
    return boxes.round(3).tolist()
