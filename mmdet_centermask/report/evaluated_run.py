"""The files of a test run, read for a report.

Everything is JSON: the annotations of the data set, the results that mmdet's
``CocoMetric`` writes with ``outfile_prefix``, and the metrics of the run. The
``--out`` pickle of ``tools/test.py`` is not touched: a pickle can run code.
"""

from __future__ import annotations

import json
import os.path as osp
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from mmdet.registry import DATASETS
from mmengine.config import Config
from pycocotools.coco import COCO

from ..experiment import ExperimentError, walk_datasets

KINDS = ('bbox', 'segm')


@dataclass(frozen=True)
class EvaluatedRun:
    """Truth and results of a test run.

    Attributes:
        name: Of the config.
        truth: The annotations; areas in pixels, boxes ``x, y, width, height``.
        results: Detections by kind, ``bbox`` and ``segm`` or one of them, with the
            score that the metric ranks by.
        categories: Ids of the classes that count, rising, as pycocotools sorts them.
        images: Folder of the pictures.
        max_dets: Best detections of a class that count in a picture.
        area_edges: Square pixels at which small ends and large begins.
        batch_size: Pictures in one step of the test.
        metrics: What the run wrote itself; ``time`` and ``data_time`` are the seconds
            of one step. Empty where the file is not there.
    """

    name: str
    truth: COCO
    results: Mapping[str, COCO]
    categories: tuple[int, ...]
    images: Path
    max_dets: int
    area_edges: tuple[float, float]
    batch_size: int
    metrics: Mapping[str, float]

    @property
    def kind(self) -> str:
        """What mistakes are looked for in: masks where there are any."""
        return 'segm' if 'segm' in self.results else 'bbox'

    @property
    def class_names(self) -> list[str]:
        return [self.truth.cats[number]['name'] for number in self.categories]


def read_run(
    config: str | Path, prefix: str, metrics: str | Path | None = None
) -> EvaluatedRun:
    """Read what a test run left.

    Args:
        config: The config file of the run; says where truth and pictures are.
        prefix: The metric's ``outfile_prefix``; ``.bbox.json`` and ``.segm.json``
            are added.
        metrics: The ``TIME/TIME.json`` of the run.

    Raises:
        ExperimentError: A file is not there, or they do not belong together.
    """
    cfg = Config.fromfile(config)
    evaluator = coco_evaluator(cfg.get('test_evaluator'))
    _, dataset = next(walk_datasets(cfg.test_dataloader.dataset, ''))
    truth = load_truth(evaluator['ann_file'])
    results = {
        kind: load_results(truth, f'{prefix}.{kind}.json', kind)
        for kind in KINDS
        if osp.isfile(f'{prefix}.{kind}.json')
    }
    if not results:
        raise ExperimentError(
            f'results={prefix!r}: neither {prefix}.bbox.json nor {prefix}.segm.json is '
            'there; tools/test.py writes them with --cfg-options '
            f'test_evaluator.outfile_prefix={prefix}'
        )
    small, large = evaluator.get('area_edges', (32**2, 96**2))
    return EvaluatedRun(
        name=Path(config).stem,
        truth=truth,
        results=results,
        categories=categories_of(truth, dataset),
        images=image_folder(dataset),
        max_dets=evaluator.get('max_dets', 100),
        area_edges=(small, large),
        batch_size=cfg.test_dataloader.get('batch_size', 1),
        metrics=json.loads(Path(metrics).read_text()) if metrics else {},
    )


def coco_evaluator(evaluators: Any) -> Mapping[str, Any]:
    """The first evaluator that counts COCO's instances."""
    if not isinstance(evaluators, Sequence):
        evaluators = [evaluators or {}]
    for evaluator in evaluators:
        kind = evaluator.get('type', '')
        if kind in ('CocoMetric', 'DenseCocoMetric') and evaluator.get('ann_file'):
            return evaluator
    kinds = [evaluator.get('type') for evaluator in evaluators]
    raise ExperimentError(
        f'test_evaluator.type={kinds}: a report needs CocoMetric or DenseCocoMetric '
        'with its ann_file'
    )


def load_truth(path: str) -> COCO:
    if not osp.isfile(path):
        raise ExperimentError(f'test_evaluator.ann_file={path!r} does not exist')
    with redirect_stdout(StringIO()):  # pycocotools tells how long it took
        return COCO(path)


def load_results(truth: COCO, path: str, kind: str) -> COCO:
    """COCO's results of one kind; none at all are fine."""
    found = json.loads(Path(path).read_text())
    strangers = {entry['image_id'] for entry in found} - truth.imgs.keys()
    if strangers:
        raise ExperimentError(
            f'{path}: image_id={min(strangers)} and {len(strangers) - 1} more are not '
            'in test_evaluator.ann_file; the results belong to other data'
        )
    if kind == 'segm':
        for entry in found:
            # With a box, pycocotools would sort masks into sizes by the box's area.
            entry.pop('bbox', None)
    with redirect_stdout(StringIO()):
        if found:
            return truth.loadRes(found)
        empty = COCO()
        empty.dataset = {**truth.dataset, 'annotations': []}
        empty.createIndex()
        return empty


def categories_of(truth: COCO, dataset: Mapping[str, Any]) -> tuple[int, ...]:
    """Ids of the classes that the data set's config names."""
    names = dataset.get('metainfo', {}).get('classes')
    if names is None:
        names = DATASETS.get(dataset['type']).METAINFO['classes']
    numbers = sorted(n for n, entry in truth.cats.items() if entry['name'] in names)
    if not numbers:
        raise ExperimentError(
            f'metainfo.classes={list(names)}: none of them is a category of '
            'test_evaluator.ann_file'
        )
    return tuple(numbers)


def image_folder(dataset: Mapping[str, Any]) -> Path:
    prefix = dataset.get('data_prefix', {}).get('img', '')
    return Path(dataset.get('data_root') or '', prefix)
