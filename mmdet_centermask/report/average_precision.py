"""COCO's numbers of a run, as pycocotools counts them."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from typing import NamedTuple

import numpy as np
from pycocotools.cocoeval import COCOeval

from ..evaluation.dense_coco_metric import AREAS, mean_of, summarize
from .evaluated_run import EvaluatedRun

THRESHOLDS = np.arange(1, 100) / 100


class ScoreCurve(NamedTuple):
    """Of all classes together, at IoU 0.5, one number for each of ``THRESHOLDS``.

    Precision is -1 where no detection is left.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def evaluate(run: EvaluatedRun, kind: str) -> COCOeval:
    """pycocotools' tables of one kind, accumulated.

    Classes in the order of ``run.categories``, areas in that of ``AREAS``.
    """
    evaluation = COCOeval(run.truth, run.results[kind], kind)
    params = evaluation.params
    params.catIds = list(run.categories)
    params.maxDets = [run.max_dets]
    small, large = run.area_edges
    most = params.areaRng[0][1]
    params.areaRng = [[0, most], [0, small], [small, large], [large, most]]
    params.areaRngLbl = list(AREAS)
    with redirect_stdout(StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def summary(evaluation: COCOeval, category: int | None = None) -> dict[str, float]:
    """``mAP``, ``mAP_50``, ``mAP_75``, ``mAP_s``, ``mAP_m``, ``mAP_l`` and ``AR``.

    Args:
        evaluation: From :func:`evaluate`.
        category: Place of a class in ``params.catIds``; all by default.

    Returns:
        The means; -1 where the data has no object.
    """
    classes = slice(None) if category is None else slice(category, category + 1)
    tables = dict(
        precision=evaluation.eval['precision'][:, :, classes],
        recall=evaluation.eval['recall'][:, classes],
    )
    return summarize(tables, evaluation.params.iouThrs)


def precision_at_recall(
    evaluation: COCOeval, category: int | None = None, iou: float | None = None
) -> np.ndarray:
    """Precision at the 101 recalls 0, 0.01, ... 1; mean of what is not picked.

    Args:
        evaluation: From :func:`evaluate`.
        category: Place of a class in ``params.catIds``.
        iou: One of ``params.iouThrs``.
    """
    table = evaluation.eval['precision'][..., 0, 0]  # IoU, recall, class
    if iou is not None:
        table = table[np.isclose(evaluation.params.iouThrs, iou)]
    if category is not None:
        table = table[:, :, category : category + 1]
    return np.array([mean_of(table[:, r]) for r in range(table.shape[1])])


def score_curve(evaluation: COCOeval) -> ScoreCurve:
    """Precision, recall and F1 of keeping the scores at or above each threshold."""
    everything = evaluation.params.areaRng[0]
    scores, right, objects = [np.zeros(0)], [np.zeros(0, bool)], 0
    for picture in evaluation.evalImgs:
        if picture is None or picture['aRng'] != everything:
            continue
        objects += np.count_nonzero(np.asarray(picture['gtIgnore']) == 0)
        counted = ~picture['dtIgnore'][0].astype(bool)  # row 0 is IoU 0.5
        scores.append(np.asarray(picture['dtScores'])[counted])
        right.append(picture['dtMatches'][0][counted] > 0)
    return curve_of(np.concatenate(scores), np.concatenate(right), objects)


def curve_of(scores: np.ndarray, right: np.ndarray, objects: int) -> ScoreCurve:
    """:func:`score_curve` of detections ``(n,)`` and the number of objects."""
    kept = scores >= THRESHOLDS[:, None]
    detections, found = kept.sum(1), (kept & right).sum(1)
    precision = np.where(detections, found / np.maximum(detections, 1), -1)
    recall = found / max(objects, 1)
    f1 = 2 * found / np.maximum(detections + objects, 1)
    return ScoreCurve(precision, recall, f1)
