"""COCO's AP for pictures with more than a hundred objects.

pycocotools' ``summarize`` computes the headline AP at 100 detections per picture,
whatever ``maxDets`` says, while AP50 and AP75 use the last of ``maxDets``. On a picture
with 2000 cells a perfect detector then has an AP of 0.05.
"""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.datasets.api_wrappers import COCO, COCOeval
from mmdet.evaluation.metrics import CocoMetric
from mmdet.registry import METRICS
from mmengine.fileio import load
from mmengine.logging import MMLogger

AREAS = ('all', 's', 'm', 'l')


@METRICS.register_module()
class DenseCocoMetric(CocoMetric):
    """``CocoMetric`` whose every number counts ``max_dets`` detections per picture.

    Args:
        max_dets: Best detections of a class that count in a picture.
        area_edges: Square pixels at which small ends and large begins; COCO's by
            default.
        kwargs: Of ``CocoMetric``, with ``metric`` out of ``bbox`` and ``segm``.

    Returns of ``compute_metrics``: for each metric ``mAP``, ``mAP_50``, ``mAP_75``,
        ``mAP_s``, ``mAP_m``, ``mAP_l``, as ``CocoMetric`` names them, and ``AR``, the
        mean recall at ``max_dets``; -1 where there is no object. ``classwise`` adds
        ``{class}_precision``.

    Raises:
        ValueError: ``metric`` is something else, or ``max_dets`` is not positive.
    """

    def __init__(
        self,
        *args: Any,
        max_dets: int = 2000,
        area_edges: tuple[float, float] = (32**2, 96**2),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        other = set(self.metrics) - {'bbox', 'segm'}
        if other:
            raise ValueError(
                f'DenseCocoMetric: metric={sorted(other)} is not counted here, only '
                'bbox and segm; CocoMetric does proposals'
            )
        if max_dets < 1:
            raise ValueError(f'DenseCocoMetric: max_dets={max_dets} must be positive')
        self.max_dets = max_dets
        self.area_edges = area_edges

    def compute_metrics(self, results: list) -> dict[str, float]:
        """AP and AR of the ``(ground truth, prediction)`` pairs of ``process``."""
        truths, predictions = zip(*results, strict=True)
        with tempfile.TemporaryDirectory() as folder:
            prefix = self.outfile_prefix or str(Path(folder) / 'results')
            self._read_truth(truths, prefix)
            files = self.results2json(predictions, prefix)
            numbers: dict[str, float] = OrderedDict()
            if self.format_only:
                return numbers
            for metric in self.metrics:
                if metric not in files:
                    raise KeyError(f'{metric} is not in results')
                found = self.evaluate_file(files[metric], metric)
                numbers.update({f'{metric}_{name}': n for name, n in found.items()})
        return numbers

    def _read_truth(self, truths: Sequence[dict], prefix: str) -> None:
        """Set what the base class fills when first needed."""
        # None in the base class until now, which says nothing about their types.
        self._coco_api: Any
        self.cat_ids: Any
        self.img_ids: Any
        if self._coco_api is None:
            self._coco_api = COCO(self.gt_to_coco_json(truths, prefix))
        if self.cat_ids is None:
            self.cat_ids = self._coco_api.get_cat_ids(
                cat_names=self.dataset_meta['classes']
            )
        if self.img_ids is None:
            self.img_ids = self._coco_api.get_img_ids()

    def evaluate_file(self, path: str, metric: str) -> dict[str, float]:
        """The numbers of a file in COCO's result format."""
        logger = MMLogger.get_current_instance()
        predictions = load(path)
        if not predictions:
            logger.error('The testing results of the whole dataset is empty.')
            return {}
        if metric == 'segm':
            # With a box, pycocotools would sort masks into sizes by the box's area.
            for prediction in predictions:
                prediction.pop('bbox')
        evaluation = COCOeval(
            self._coco_api, self._coco_api.loadRes(predictions), metric
        )
        params = evaluation.params
        params.catIds, params.imgIds = self.cat_ids, self.img_ids
        params.iouThrs = np.atleast_1d(self.iou_thrs)
        params.maxDets = [self.max_dets]
        small, large = self.area_edges
        everything = params.areaRng[0][1]
        params.areaRng = [
            [0, everything],
            [0, small],
            [small, large],
            [large, everything],
        ]
        params.areaRngLbl = list(AREAS)
        evaluation.evaluate()
        evaluation.accumulate()
        numbers = summarize(evaluation.eval, params.iouThrs)
        if self.classwise:
            numbers |= self._by_class(evaluation.eval['precision'])
        logger.info(
            f'{metric}, {self.max_dets} detections per picture: '
            + ', '.join(f'{name} {value:.3f}' for name, value in numbers.items())
        )
        return {name: round(value, 3) for name, value in numbers.items()}

    def _by_class(self, precision: np.ndarray) -> dict[str, float]:
        names = [self._coco_api.cats[number]['name'] for number in self.cat_ids]
        return {
            f'{name}_precision': mean_of(precision[:, :, k, 0])
            for k, name in enumerate(names)
        }


def summarize(accumulated: dict, iou_thrs: np.ndarray) -> dict[str, float]:
    """Means over pycocotools' tables.

    Args:
        accumulated: ``precision`` ``(IoU, recall, class, area, maxDets)`` and
            ``recall`` ``(IoU, class, area, maxDets)``; -1 where nothing is counted.
        iou_thrs: The IoU of each row.
    """
    precision, recall = accumulated['precision'], accumulated['recall']
    numbers = dict(mAP=mean_of(precision[:, :, :, 0]))
    for name, iou in (('mAP_50', 0.5), ('mAP_75', 0.75)):
        rows = np.isclose(iou_thrs, iou)
        numbers[name] = mean_of(precision[rows][:, :, :, 0])
    for area, name in enumerate(AREAS[1:], 1):
        numbers[f'mAP_{name}'] = mean_of(precision[:, :, :, area])
    numbers['AR'] = mean_of(recall[:, :, 0])
    return numbers


def mean_of(table: np.ndarray) -> float:
    """Mean of the entries that are counted, -1 without any."""
    counted = table[table > -1]
    return float(counted.mean()) if counted.size else -1.0
