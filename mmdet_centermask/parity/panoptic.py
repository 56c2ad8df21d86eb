"""Panoptic answers in the words of the goldens.

There, semantic class 0 is any thing and the stuff follows; here the stuff comes first
and the things are last. There, segments are numbered from 1, instances before stuff,
and 0 is void; here a pixel holds its label and its instance.
"""

from __future__ import annotations

import json

import numpy as np
from mmdet.evaluation.functional import INSTANCE_OFFSET
from mmdet.models.detectors import BaseDetector
from torch import Tensor

CLASS_STEP, PIXEL_STEP = 4, 8  # of the semantic logits in a golden


def panoptic_answers(
    model: BaseDetector, pyramid: tuple, sample
) -> dict[str, np.ndarray | Tensor]:
    """Semantic logits of `pyramid`, and the fused map that `sample` was given."""
    height, width = sample.img_shape[:2]
    (logits,) = model.semantic_head.predict(pyramid, [sample.metainfo], rescale=False)
    logits = logits.roll(1, dims=0)
    segments, info = number_segments(
        sample.pred_panoptic_seg.sem_seg[0].numpy(),
        model.semantic_head.num_things_classes,
        model.semantic_head.num_stuff_classes,
    )
    return {
        'sem_logits': logits[::CLASS_STEP, ::PIXEL_STEP, ::PIXEL_STEP],
        'sem_argmax': logits[:, :height, :width].argmax(0),
        'panoptic': segments,
        'panoptic_info': info,
    }


def number_segments(
    panoptic: np.ndarray, things: int, stuff: int
) -> tuple[np.ndarray, np.ndarray]:
    """Segment numbers `(H, W)` and, for each segment, a row as `segment_table` has.

    Args:
        panoptic: `label + 1000 * instance`, void is `things + stuff`.
        things: Number of thing classes, which are the labels from 0.
        stuff: Number of stuff classes, the labels behind.
    """
    segments = np.zeros(panoptic.shape, np.int32)
    found = [v for v in np.unique(panoptic) if v % INSTANCE_OFFSET < things + stuff]
    rows: list[list[int]] = []
    # Instances have numbers from 1, stuff has 0 and comes last.
    for value in sorted(
        found, key=lambda v: (v < INSTANCE_OFFSET, v // INSTANCE_OFFSET)
    ):
        label = int(value % INSTANCE_OFFSET)
        is_thing = label < things
        number = len(rows) + 1
        segments[panoptic == value] = number
        rows.append([number, is_thing, label if is_thing else label - things + 1])
    return segments, np.array(rows, np.int64).reshape(-1, 3)


def segment_table(info: np.ndarray) -> np.ndarray:
    """`(n, 3)`: number, whether it is a thing, category; from a golden's JSON."""
    rows = [[s['id'], s['isthing'], s['category_id']] for s in json.loads(str(info))]
    return np.array(rows, np.int64).reshape(-1, 3)
