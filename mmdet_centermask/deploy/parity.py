"""Does an exported network answer as PyTorch does?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from mmdet.models.detectors import BaseDetector
from mmdet.structures import DetDataSample

from .predict import Predictor

# What the exported network is promised to keep to.
BOX_LIMIT = 0.05  # pixels
SCORE_LIMIT = 1e-3
MASK_IOU_LIMIT = 0.99

Found = Mapping[str, np.ndarray]


class TorchPredictor(Predictor):
    """The trained model behind the face of `predict.Predictor`.

    Args:
        model: In eval mode.
        info: Contents of model.json.
    """

    def __init__(self, model: BaseDetector, info: Mapping[str, Any]) -> None:
        self.model, self.info = model, info

    @torch.no_grad()
    def find(
        self,
        image: np.ndarray,
        scale: np.ndarray,
        size: tuple[int, int],
        score_thr: float,
    ) -> dict[str, np.ndarray]:
        """As `Predictor.find`."""
        height, width = image.shape[1:]
        sample = DetDataSample(
            metainfo=dict(
                img_shape=(height, width), ori_shape=size, scale_factor=tuple(scale)
            )
        )
        padded = torch.from_numpy(np.ascontiguousarray(self.pad(image)[None]))
        (result,) = self.model.predict(padded, [sample])
        instances = result.pred_instances
        mask_scores = instances.get('mask_scores', instances.scores)
        instances = instances[mask_scores > score_thr]
        return dict(
            boxes=instances.bboxes.numpy(),
            labels=instances.labels.numpy(),
            scores=instances.scores.numpy(),
            mask_scores=mask_scores[mask_scores > score_thr].numpy(),
            masks=instances.masks.numpy().astype(bool),  # a tensor or RLEMasks
        )


class Difference(NamedTuple):
    """How far two answers about one picture are apart, object by object."""

    counts: tuple[int, int]
    unmatched: int
    """Objects that have no partner of their class within a pixel."""

    box: float
    """Largest difference of a side, in pixels of the picture."""

    score: float
    """Largest difference of a box or mask score."""

    mask_iou: float
    """Smallest IoU of the two masks of an object."""

    @property
    def within_limits(self) -> bool:
        return (
            self.unmatched == 0
            and self.box <= BOX_LIMIT
            and self.score <= SCORE_LIMIT
            and self.mask_iou >= MASK_IOU_LIMIT
        )


def difference(
    one: Found, other: Found, score_thr: float = float('-inf')
) -> Difference:
    """Pair the objects of two answers, the most alike first, and compare.

    Args:
        one: As `Predictor.find` returns it, with all objects.
        other: The same.
        score_thr: Only objects with a mask score above count as unmatched. Which of
            the faint ones is the last to be kept may hang on the last bit.
    """
    counts = len(one['boxes']), len(other['boxes'])
    pairs = matched(one, other)
    boxes, scores, ious = [0.0], [0.0], [1.0]
    for i, j in pairs:
        boxes.append(float(np.abs(one['boxes'][i] - other['boxes'][j]).max()))
        for name in ('scores', 'mask_scores'):
            scores.append(float(abs(one[name][i] - other[name][j])))
        ious.append(mask_iou(one['masks'][i], other['masks'][j]))
    lonely = [
        np.delete(one['mask_scores'], [i for i, _ in pairs]),
        np.delete(other['mask_scores'], [j for _, j in pairs]),
    ]
    unmatched = int((np.concatenate(lonely) > score_thr).sum())
    return Difference(counts, unmatched, max(boxes), max(scores), min(ious))


def matched(one: Found, other: Found) -> list[tuple[int, int]]:
    """Index pairs of objects of one class whose boxes are within a pixel."""
    gaps = np.abs(one['boxes'][:, None] - other['boxes'][None]).max(-1, initial=0)
    same = one['labels'][:, None] == other['labels'][None]
    # Boxes that reach out of the picture on all sides are equal once clipped; their
    # scores tell them apart.
    scores = np.abs(one['scores'][:, None] - other['scores'][None])
    gaps = np.where(same & (gaps < 1), gaps + scores / SCORE_LIMIT, np.inf)
    pairs = []
    while gaps.size and np.isfinite(gaps).any():
        i, j = np.unravel_index(gaps.argmin(), gaps.shape)
        pairs.append((int(i), int(j)))
        gaps[i], gaps[:, j] = np.inf, np.inf
    return pairs


def mask_iou(one: np.ndarray, other: np.ndarray) -> float:
    """IoU of two bool masks; 1 where both are empty."""
    union = np.count_nonzero(one | other)
    return float(np.count_nonzero(one & other) / union) if union else 1.0
