"""Ground truth that no loss can be computed on, or none that makes sense."""

from __future__ import annotations

import logging

import numpy as np
import torch
from mmdet.structures import SampleList
from mmdet.structures.bbox import get_box_tensor
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.logging import MessageHub, print_log
from mmengine.structures import InstanceData
from torch import Tensor

COUNTER = 'dropped_objects'


def without_empty_objects(samples: SampleList) -> SampleList:
    """Samples whose ``gt_instances`` all :func:`have area <has_area>`.

    Datasets leave such objects out when they read the file, without a word; here are
    those that augmentation makes, and those of datasets that do not look. How many
    have been dropped stands in the log as ``dropped_objects``.

    Args:
        samples: Ground truth of a batch. The objects given are not changed.
    """
    kept, dropped = [], {}
    for sample in samples:
        keep = has_area(sample.gt_instances)
        if not keep.all():
            dropped[sample.metainfo.get('img_id')] = int((~keep).sum())
            sample = sample.new()
            sample.gt_instances = sample.gt_instances[keep]
        kept.append(sample)
    if dropped:
        count_dropped(dropped)
    return kept


def has_area(instances: InstanceData) -> Tensor:
    """Flags ``(n,)``: the box is finite and has an area, the mask has a pixel."""
    boxes = get_box_tensor(instances.bboxes)
    sides = boxes[:, 2:] - boxes[:, :2]
    flags = (sides > 0).all(1) & boxes.isfinite().all(1)
    if 'masks' in instances:
        flags &= torch.from_numpy(masks_have_area(instances.masks)).to(flags.device)
    return flags


def masks_have_area(masks: BitmapMasks | PolygonMasks) -> np.ndarray:
    """Flags ``(n,)`` of the masks that cover anything."""
    if isinstance(masks, BitmapMasks):
        # Several times as fast as the sum behind `areas`.
        return masks.masks.any(axis=(1, 2))
    return masks.areas > 0


def count_dropped(dropped: dict[int | None, int]) -> None:
    """Add to the counter in the log; the first time, say which pictures."""
    hub = MessageHub.get_current_instance()
    total = hub.runtime_info.get(COUNTER, 0) + sum(dropped.values())
    if COUNTER not in hub.runtime_info:
        print_log(
            f'Objects without area are left out of the losses: {dropped} (picture '
            f'id: how many). From here on the log counts them as {COUNTER}.',
            logger='current',
            level=logging.WARNING,
        )
    hub.update_info(COUNTER, total)
    hub.update_scalar(f'train/{COUNTER}', total)
