"""The last step of a mask branch: masks on RoIs become instances of a picture."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from mmdet.utils import ConfigType
from mmengine.structures import InstanceData
from torch import Tensor

from .mask_paste import paste_dense, paste_rle

PASTE = dict(bitmap=paste_dense, rle=paste_rle)
MASK_FORMATS = (*PASTE, 'roi')


class RoIMasks(NamedTuple):
    """What a mask branch says about the boxes of one picture, row by row."""

    probabilities: Tensor
    """``(n, h, w)``, of each box's own class, stretched over the box."""

    ious: Tensor | None = None
    """``(n,)`` predicted mask IoUs, or None without an IoU head."""


def passing(instances: InstanceData, cfg: ConfigType) -> Tensor:
    """``(n,)`` bool: whose mask score, or score before there is one, is enough.

    Asked twice, of the boxes and of their masks: no IoU is above 1, so that a box
    below ``cfg.score_thr`` need not have a mask.
    """
    scores = instances.get('mask_scores', instances.scores)
    return ~(scores < cfg.get('score_thr', -math.inf))


def finish_instances(
    result: InstanceData,
    masks: RoIMasks,
    img_meta: dict,
    cfg: ConfigType,
    rescale: bool,
) -> InstanceData:
    """Score the masks, keep what passes, clip the boxes, paste.

    Args:
        result: ``bboxes`` ``(n, 4)`` in network-input pixels, may reach out of the
            picture; ``scores``, ``labels``.
        masks: Of these boxes.
        img_meta: ``img_shape`` and, where they differ from it, ``ori_shape`` and
            ``scale_factor`` (width, height).
        cfg: ``mask_thr_binary``, a probability; ``mask_format``: ``'bitmap'``
            (default), ``'rle'`` or ``'roi'``; ``score_thr``, the least mask score, or
            score without IoUs, none by default.
        rescale: Answer in pixels of the original picture.

    Returns:
        The instances that pass and whose box covers some of the picture: ``bboxes``
        clipped, ``scores``, ``labels``; with IoUs ``mask_scores`` = score x IoU
        (section 3.4; not clamped); ``masks`` ``(n, H, W)`` bool or
        :class:`RLEMasks`, or with ``'roi'`` instead ``roi_masks`` ``(n, h, w)``, the
        probabilities, for whoever wants to stretch them over the boxes.
    """
    if masks.ious is not None:
        # Not by the stock MaskIoUHead.predict_by_feat, which overwrites `scores`:
        # box AP ranks by those, and mmdet's metrics read `mask_scores` for masks.
        result.mask_scores = result.scores * masks.ious
    passed = passing(result, cfg)
    result, probabilities = clip_to_picture(
        result[passed], masks.probabilities[passed], img_meta['img_shape']
    )
    size = img_meta['img_shape'][:2]
    if rescale:
        scale = result.bboxes.new_tensor(img_meta.get('scale_factor', (1.0, 1.0)))
        result.bboxes = result.bboxes / scale.repeat(2)
        size = img_meta.get('ori_shape', size)[:2]
    mask_format = cfg.get('mask_format', 'bitmap')
    if mask_format == 'roi':
        # Not as `masks`: what reads those takes them for pictures.
        result.roi_masks = probabilities
        return result
    result.masks = PASTE[mask_format](
        probabilities, result.bboxes, (int(size[0]), int(size[1])), cfg.mask_thr_binary
    )
    return result


def clip_to_picture(
    result: InstanceData, masks: Tensor, img_shape: tuple[int, ...]
) -> tuple[InstanceData, Tensor]:
    """Clip boxes to the picture and drop those that leave nothing.

    The mask branch sees the unclipped box, as in training; its mask is then
    stretched over the clipped one, which is what the released models do.

    Args:
        result: ``bboxes`` ``(n, 4)`` in network-input pixels and other fields.
        masks: ``(n, ...)``.
        img_shape: Height and width of the picture before padding.

    Returns:
        The instances and masks that are left.
    """
    height, width = img_shape[:2]
    boxes = result.bboxes
    limits = boxes.new_tensor([width, height, width, height])
    result.bboxes = torch.minimum(boxes.clamp(min=0), limits)
    sizes = result.bboxes[:, 2:] - result.bboxes[:, :2]
    kept = (sizes > 0).all(dim=1)
    return result[kept], masks[kept]


def of_label(per_class: Tensor, labels: Tensor) -> Tensor:
    """``(n, K, ...)`` -> ``(n, ...)``: each row's entry of its own class.

    A class-agnostic head has one entry for all, ``(n, 1, ...)``.
    """
    if per_class.shape[1] == 1:
        return per_class[:, 0]
    rows = torch.arange(labels.shape[0], device=labels.device)
    return per_class[rows, labels]
