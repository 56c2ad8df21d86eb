"""A detector without training that predicts like a trained one.

What a detector takes depends on what it finds. One without training finds nothing, or
something everywhere; here it gets the features, the sizes of boxes and the number of
detections that one with training has. Everything is seeded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import FCOSHead
from mmdet.models.detectors import BaseDetector
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

Data = dict[str, Any]

# Strides from an object's center to each side of its box: 64 pixels on P3, 1024 on P7.
DISTANCE = 4.0
# Found by the threshold beyond the number that is kept: with other rounding a score
# may slip below it.
RESERVE = 1.25
# From one threshold to the next, downwards, and halvings of the last such step.
STEP, HALVINGS = 0.8, 4
LOWEST = 1e-4


@torch.no_grad()
def settle(model: BaseDetector, data: Data) -> None:
    """Give an initialised model features and boxes of the usual sizes.

    Running statistics become those of the pictures in ``data``: with the initial 0
    and 1, features double from block to block. A fresh FCOS head says that every
    object has no extent.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    model.extract_feat(model.data_preprocessor(data)['inputs'])
    model.eval()
    for head in model.modules():
        if isinstance(head, FCOSHead) and head.norm_on_bbox:
            nn.init.constant_(head.conv_reg.bias, DISTANCE)


def keep_detections(
    model: BaseDetector, batches: Sequence[Data], number: int
) -> float | None:
    """Make ``number`` detections come out of each picture.

    The score threshold is lowered until a quarter more pass it than ``max_per_img``
    then keeps: as with training, few candidates come to NMS, and the best remain.

    Returns:
        The threshold, or None where the detector has none (Mask2Former).
    """
    if not any('score_thr' in cfg for cfg in limits(model)):
        set_limits(model, number)
        return None
    wanted = int(number * RESERVE)
    counts = [detections_above(model, data, wanted) for data in batches]

    def enough(score_thr: float) -> bool:
        return all(count(score_thr) >= wanted for count in counts)

    low = highest_enough(enough)
    set_limits(model, number, low)
    return low


def highest_enough(enough: Callable[[float], bool]) -> float:
    """Nearly the highest threshold that lets enough pass, or the lowest looked at.

    From above: far below it, SOLO would make a mask of every cell and class.
    """
    high, low = 1.0, STEP
    while not enough(low) and low > LOWEST:
        high, low = low, low * STEP
    for _ in range(HALVINGS):
        middle = (high * low) ** 0.5
        if enough(middle):
            low = middle
        else:
            high = middle
    return low


@torch.no_grad()
def detections_above(
    model: BaseDetector, data: Data, limit: int
) -> Callable[[float], int]:
    """How many detections of the poorest picture pass a threshold, up to ``limit``.

    The features are computed once.
    """
    batch = model.data_preprocessor(data)
    features = model.extract_feat(batch['inputs'])

    @torch.no_grad()
    def count(score_thr: float) -> int:
        set_limits(model, limit, score_thr)
        model.extract_feat = lambda _: features
        try:
            samples = model.predict(batch['inputs'], batch['data_samples'])
        finally:
            del model.extract_feat
        return min(len(sample.pred_instances) for sample in samples)

    return count


def set_limits(
    model: BaseDetector, number: int, score_thr: float | None = None
) -> None:
    """Set every threshold on scores and every number of detections of ``model``."""
    for cfg in limits(model):
        for key in {'max_per_img', 'max_per_image'} & cfg.keys():
            cfg[key] = number
        if score_thr is not None and 'score_thr' in cfg:
            cfg['score_thr'] = score_thr
            if 'filter_thr' in cfg:  # SOLO: the threshold after its NMS
                cfg['filter_thr'] = 0.0


def limits(model: BaseDetector) -> Iterator[dict[str, Any]]:
    """The test settings of a detector and its heads, but for region proposals."""
    for name, module in model.named_modules():
        cfg = getattr(module, 'test_cfg', None)
        if isinstance(cfg, dict) and 'rpn_head' not in name.split('.'):
            yield cfg
            yield from (cfg[key] for key in ('bbox', 'rcnn') if key in cfg)
