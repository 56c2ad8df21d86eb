"""The last step of a mask branch: masks on RoIs become instances of a picture."""

from __future__ import annotations

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


def confident_boxes(boxes: InstanceData, cfg: ConfigType) -> InstanceData:
    """The boxes with ``scores`` of at least ``cfg.score_thr``; all without one."""
    threshold = cfg.get('score_thr', 0.0)
    return boxes[boxes.scores >= threshold] if threshold > 0 else boxes


def finish_instances(
    result: InstanceData,
    masks: RoIMasks,
    img_meta: dict,
    cfg: ConfigType,
    rescale: bool,
) -> InstanceData:
    """Score the masks, clip the boxes, paste.

    Args:
        result: ``bboxes`` ``(n, 4)`` in network-input pixels, may reach out of the
            picture; ``scores``, ``labels``.
        masks: Of these boxes.
        img_meta: ``img_shape`` and, where they differ from it, ``ori_shape`` and
            ``scale_factor`` (width, height).
        cfg: ``mask_thr_binary``, a probability, and ``mask_format``: ``'bitmap'``
            (default), ``'rle'`` or ``'roi'``.
        rescale: Answer in pixels of the original picture.

    Returns:
        The instances whose box covers some of the picture: ``bboxes`` clipped,
        ``scores``, ``labels``, with IoUs ``mask_scores`` = score x IoU (section
        3.4; not clamped), and the masks: ``masks`` ``(n, H, W)`` bool or
        :class:`RLEMasks`, with ``'roi'`` instead ``roi_masks`` ``(n, h, w)``, the
        probabilities, each stretched over its box by whoever wants to see it.
    """
    if masks.ious is not None:
        # Not by the stock MaskIoUHead.predict_by_feat, which overwrites `scores`:
        # box AP ranks by those, and mmdet's metrics read `mask_scores` for masks.
        result.mask_scores = result.scores * masks.ious
    result, probabilities = clip_to_picture(
        result, masks.probabilities, img_meta['img_shape']
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
