"""A detector in two halves: boxes first, then masks of any boxes.

Stock detectors predict in one go. What wants to look at the boxes in between, such as
test-time augmentation, takes them apart here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from mmdet.models.detectors import TwoStageDetector
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox2roi
from mmdet.utils import ConfigType, InstanceList
from torch import Tensor, nn

from .centermask import CenterMask
from .mask_results import RoIMasks, of_label

Features = tuple[Tensor, ...]


class Steps(NamedTuple):
    """The two halves of a detector's ``predict``, and what it does to results."""

    boxes: Callable[[Features, SampleList], InstanceList]
    """Boxes after NMS, in network-input pixels."""

    masks: Callable[[Features, InstanceList, SampleList], list[RoIMasks]]
    """Masks of any boxes in that frame that have labels."""

    box_cfg: ConfigType
    """``nms``, ``max_per_img``."""

    mask_cfg: ConfigType
    """``mask_thr_binary`` and what :func:`finish_instances` reads beside it."""


def steps_of(module: nn.Module) -> Steps:
    """Take ``module`` apart.

    Raises:
        TypeError: It is neither CenterMask nor a two-stage detector whose masks come
            from the stock ``StandardRoIHead.predict_mask`` (Mask R-CNN).
    """
    # A subclass with a prediction of its own would lose it here without a word.
    if isinstance(module, CenterMask) and type(module).predict is CenterMask.predict:
        return centermask_steps(module)
    roi_head = getattr(module, 'roi_head', None)
    if (
        isinstance(module, TwoStageDetector)
        and isinstance(roi_head, StandardRoIHead)
        and roi_head.with_mask
        and type(roi_head).predict_mask is StandardRoIHead.predict_mask
        and type(roi_head)._mask_forward is StandardRoIHead._mask_forward
    ):
        return two_stage_steps(module)
    raise TypeError(
        f'{type(module).__name__} with roi_head={type(roi_head).__name__} cannot be '
        'split into boxes and masks: only CenterMask and Mask R-CNN with a '
        'StandardRoIHead can'
    )


def centermask_steps(module: CenterMask) -> Steps:
    """:class:`Steps` of CenterMask."""

    def masks(x: Features, boxes: InstanceList, samples: SampleList) -> list[RoIMasks]:
        return module.roi_head.predict_masks(x, boxes, [s.metainfo for s in samples])

    return Steps(
        module.predict_boxes, masks, module.test_cfg.bbox, module.roi_head.test_cfg
    )


def two_stage_steps(module: TwoStageDetector) -> Steps:
    """:class:`Steps` of mmdet's Mask R-CNN."""
    roi_head = module.roi_head

    def boxes(x: Features, samples: SampleList) -> InstanceList:
        proposals = module.rpn_head.predict(x, samples, rescale=False)
        metas = [s.metainfo for s in samples]
        return roi_head.predict_bbox(x, metas, proposals, roi_head.test_cfg)

    def masks(x: Features, boxes: InstanceList, samples: SampleList) -> list[RoIMasks]:
        rois = bbox2roi([b.bboxes for b in boxes])
        logits = roi_head._mask_forward(x, rois)['mask_preds']
        own = of_label(logits, torch.cat([b.labels for b in boxes])).sigmoid()
        return [RoIMasks(m) for m in own.split([len(b) for b in boxes])]

    return Steps(boxes, masks, roi_head.test_cfg, roi_head.test_cfg)
