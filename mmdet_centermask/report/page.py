"""The page: every number and picture in its place, one file that needs no other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pycocotools.cocoeval import COCOeval

from .. import __version__
from .average_precision import (
    THRESHOLDS,
    evaluate,
    precision_at_recall,
    score_curve,
    summary,
)
from .crops import crop_of
from .evaluated_run import EvaluatedRun
from .matching import MatchedPicture, confusion, match_pictures
from .mistakes import Mistake, count_verdicts, worst_false_alarms, worst_misses

FOLDER = Path(__file__).parent
EXAMPLES = 12  # of misses, and of false alarms
CHARTS = 12  # classes with curves of their own
MATRIX = 20  # classes whose confusion fits a table
PAIRS = 20  # confusions in the list that stands in for it


def render_page(run: EvaluatedRun, score_thr: float | None = None) -> str:
    """The report as HTML.

    Args:
        run: From :func:`read_run`.
        score_thr: Detections at or above it are compared with the objects; by
            default the score at which F1 is highest.
    """
    evaluations = {kind: evaluate(run, kind) for kind in run.results}
    main = evaluations[run.kind]
    curve = score_curve(main)
    best = int(curve.f1.argmax())
    threshold = float(THRESHOLDS[best]) if score_thr is None else score_thr
    pictures = match_pictures(run, threshold)
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(ap=as_ap, count=as_count)
    return environment.get_template('page.html').render(
        run=run,
        version=__version__,
        style=(FOLDER / 'page.css').read_text(encoding='utf-8'),
        facts=facts(run),
        summaries={kind: summary(table) for kind, table in evaluations.items()},
        classes=class_rows(run, evaluations),
        charts=[mean_chart(kind, table) for kind, table in evaluations.items()],
        class_charts=class_charts(run, main),
        score_chart=score_chart(curve),
        best=dict(score=THRESHOLDS[best], f1=curve.f1[best]),
        threshold=threshold,
        confusion=confusion_of(run, pictures),
        verdicts=count_verdicts(pictures),
        alarms=examples(run, worst_false_alarms(run, pictures, EXAMPLES)),
        misses=examples(run, worst_misses(run, pictures, EXAMPLES)),
        speed=speed(run),
    )


def as_ap(value: float) -> str:
    """COCO's -1 stands for no objects."""
    return '–' if value < 0 else f'{value:.3f}'


def as_count(value: int) -> str:
    return f'{value:,}'.replace(',', '\u202f')


def facts(run: EvaluatedRun) -> dict[str, int]:
    """How much there is."""
    objects = [e for e in run.truth.anns.values() if not e.get('iscrowd', 0)]
    return dict(
        pictures=len(run.truth.imgs),
        classes=len(run.categories),
        objects=sum(e['category_id'] in run.categories for e in objects),
        detections=len(run.results[run.kind].anns),
    )


def class_rows(
    run: EvaluatedRun, evaluations: dict[str, COCOeval]
) -> list[dict[str, Any]]:
    """A row of the class table each, the best first."""
    objects = [e for e in run.truth.anns.values() if not e.get('iscrowd', 0)]
    rows = [
        dict(
            name=name,
            objects=sum(e['category_id'] == number for e in objects),
            **{kind: summary(table, k) for kind, table in evaluations.items()},
        )
        for k, (number, name) in enumerate(
            zip(run.categories, run.class_names, strict=True)
        )
    ]
    return sorted(rows, key=lambda row: -row[run.kind]['mAP'])


def mean_chart(kind: str, evaluation: COCOeval) -> dict[str, Any]:
    lines = [
        ('IoU 0.50', precision_at_recall(evaluation, iou=0.5)),
        ('IoU 0.75', precision_at_recall(evaluation, iou=0.75)),
        ('mean of 0.50 to 0.95', precision_at_recall(evaluation)),
    ]
    title = dict(bbox='Boxes', segm='Masks')[kind]
    return dict(title=title, lines=[line(*one) for one in lines])


def class_charts(run: EvaluatedRun, evaluation: COCOeval) -> list[dict[str, Any]]:
    """Curves of the classes with the lowest AP, the lowest first."""
    found = [
        (summary(evaluation, k)['mAP'], k, name)
        for k, name in enumerate(run.class_names)
    ]
    shown = sorted(row for row in found if row[0] >= 0)[:CHARTS]
    return [
        dict(
            title=f'{name}, AP {as_ap(ap)}',
            lines=[
                line(f'IoU {iou:.2f}', precision_at_recall(evaluation, k, iou))
                for iou in (0.5, 0.75)
            ],
        )
        for ap, k, name in shown
    ]


def score_chart(curve: Any) -> dict[str, Any]:
    names = ('precision', 'recall', 'F1')
    lines = [line(*one, THRESHOLDS) for one in zip(names, curve, strict=True)]
    return dict(title='', lines=lines)


def line(label: str, ys: np.ndarray, xs: np.ndarray | None = None) -> dict[str, str]:
    """A line of a chart: x and y in 0 to 1, in the chart's 200 by 150 units."""
    xs = np.linspace(0, 1, len(ys)) if xs is None else xs
    points = ' '.join(
        f'{200 * x:.1f},{150 - 150 * y:.1f}'
        for x, y in zip(xs, ys, strict=True)
        if y >= 0
    )
    return dict(label=label, points=points)


def confusion_of(
    run: EvaluatedRun, pictures: Sequence[MatchedPicture]
) -> dict[str, Any]:
    """The matrix with its shades, or the commonest confusions of many classes."""
    table = confusion(run, list(pictures))
    names = run.class_names
    if len(names) <= MATRIX:
        share = table / np.maximum(table.sum(1, keepdims=True), 1)
        share[-1] = table[-1] / np.maximum(table.sum(0), 1)  # no objects to share
        rows = [
            dict(name=name, cells=list(zip(counts, shares, strict=True)))
            for name, counts, shares in zip(
                [*names, 'nothing'], table.tolist(), share.tolist(), strict=True
            )
        ]
        return dict(names=[*names, 'missed'], rows=rows, pairs=None)
    classes = table[:-1, :-1].copy()
    np.fill_diagonal(classes, 0)
    order = np.argsort(-classes, axis=None, kind='stable')[:PAIRS]
    pairs = [divmod(int(place), len(names)) for place in order]
    return dict(
        pairs=[
            dict(there=names[i], said=names[j], count=int(classes[i, j]))
            for i, j in pairs
            if classes[i, j]
        ]
    )


def examples(run: EvaluatedRun, mistakes: Sequence[Mistake]) -> list[dict[str, Any]]:
    """What a figure shows and says."""

    def name(entry: dict | None) -> str | None:
        return None if entry is None else run.truth.cats[entry['category_id']]['name']

    return [
        dict(
            picture=run.truth.imgs[mistake.picture]['file_name'],
            source=crop_of(run, mistake),
            verdict=mistake.verdict and mistake.verdict.value,
            said=name(mistake.detection),
            score=mistake.detection and mistake.detection['score'],
            there=name(mistake.truth),
            iou=mistake.iou,
        )
        for mistake in mistakes
    ]


def speed(run: EvaluatedRun) -> dict[str, float] | None:
    """Seconds per picture as the run measured them, if it did."""
    if not run.metrics.get('time'):
        return None
    batch = run.batch_size
    return dict(
        picture=run.metrics['time'] / batch,
        waiting=run.metrics.get('data_time', 0.0) / batch,
        rate=batch / run.metrics['time'],
    )
