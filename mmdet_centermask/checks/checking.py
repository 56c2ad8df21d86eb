"""Check every annotation file of a config: the file, its classes, rules, pictures."""

from __future__ import annotations

import os.path as osp
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from mmengine.config import Config

from .annotation_file import AnnotationFileError, read_annotations, read_categories
from .annotation_table import AnnotationTable, Track, make_table
from .classes import check_counts, check_names, labels_of
from .finding import RUN_WIDE, SEVERITIES, Finding
from .pictures import check_pictures
from .rules import apply_rules
from .sources import SPLITS, Source, find_sources

# How much is looked at. `step0`: of large files the categories alone, and a few
# pictures; `headers`: everything but what is inside the pictures; `decode`: that too.
Depth = Literal['step0', 'headers', 'decode']
STEP0_BYTES = 2**25  # JSON that is parsed and checked in about a second
STEP0_PICTURES = 32


@dataclass
class FileReport:
    """What was found about one annotation file.

    Attributes:
        source: The file.
        findings: Errors first.
        labels: Names of the labels 0, 1, ...; None where they are not known.
        table: The columns; None where the file was not parsed.
    """

    source: Source
    findings: list[Finding]
    labels: list[str] | None = None
    table: AnnotationTable | None = None

    @property
    def contents(self) -> str:
        """How much there is in the file."""
        if self.table is None:
            return 'annotations not looked at'
        t = self.table
        return (
            f'{len(t.images)} images, {len(t.annotations)} annotations, '
            f'{len(t.categories)} categories'
        )


def check_config(
    cfg: Config,
    splits: Sequence[str] = SPLITS,
    depth: Depth = 'headers',
    *,
    track: Track,
) -> tuple[list[FileReport], list[str]]:
    """Check what the splits of a config read.

    Returns a report for each file, and a sentence on each dataset left out.
    """
    sources, left_out = find_sources(cfg, splits)
    model = cfg.get('model')
    reports = [check_source(source, depth, track) for source in sources]
    labelled = [report for report in reports if report.labels]
    said: list[Finding] = []
    for report in reports:
        counts = check_model(report.source, model)
        report.findings += [finding for finding in counts if finding not in said]
        said += counts
        if report in labelled:
            report.findings += check_labels(report, labelled[0])
        report.findings += check_evaluated_images(report, reports)
        report.findings.sort(key=urgency)
    return reports, left_out


def urgency(finding: Finding) -> tuple[bool, int]:
    """What concerns the whole file first, then the severest."""
    return finding.subject not in RUN_WIDE, SEVERITIES.index(finding.severity)


def check_source(source: Source, depth: Depth, track: Track) -> FileReport:
    """Check one file by itself."""
    if not osp.exists(source.path):
        what = f'{source.path} does not exist'
        mend = f'correct ann_file or data_root of {source.fields[0]}'
        return FileReport(source, [Finding('error', what, mend, 'file')])
    try:
        if depth == 'step0' and osp.getsize(source.path) > STEP0_BYTES:
            categories = read_categories(source.path) or []
            table = None
        else:
            table = make_table(read_annotations(source.path), track)
            categories = table.categories
    except AnnotationFileError as error:
        mend = 'ann_file has to name COCO JSON (docs/own_dataset.md)'
        return FileReport(source, [Finding('error', str(error), mend, 'file')])
    report = FileReport(source, [], table=table)
    classes = source.metainfo.get('classes')
    if classes is not None and categories:
        report.findings += check_names(categories, classes, source.in_file_order)
        if source.in_file_order and not isinstance(classes, str):
            report.labels = labels_of(categories, classes)
    if table is not None:
        report.findings += apply_rules(table, source.uses)
        report.findings += look_at_pictures(source, table, depth, track)
    return report


def check_model(source: Source, model: Any) -> list[Finding]:
    """Whether the model counts as many classes as the data."""
    classes = source.metainfo.get('classes')
    if classes is None or isinstance(classes, str):
        return []
    return check_counts(model, source.metainfo)


def look_at_pictures(
    source: Source, table: AnnotationTable, depth: Depth, track: Track
) -> list[Finding]:
    if source.folder is None:
        return []
    if source.folder and not osp.isdir(source.folder):
        what = f'{source.folder} is no folder'
        mend = f'correct data_prefix or data_root of {source.fields[0]}'
        return [Finding('error', what, mend, 'file')]
    rows = None
    if depth == 'step0':
        count = len(table.images)
        few = np.linspace(0, count - 1, min(count, STEP0_PICTURES))
        rows = np.unique(few.astype(int)).tolist()
    return check_pictures(table, source.folder, track, depth == 'decode', rows)


def check_labels(report: FileReport, first: FileReport) -> list[Finding]:
    """Whether a label means the same class here as in the first file."""
    assert report.labels is not None and first.labels is not None
    if report.labels == first.labels:
        return []
    pairs = zip(report.labels, first.labels, strict=False)
    other = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
    if other is None:
        what = (
            f'{len(report.labels)} classes here, {len(first.labels)} in '
            f'{first.source.path}'
        )
    else:
        what = (
            f'label {other} is {report.labels[other]!r} here and '
            f'{first.labels[other]!r} in {first.source.path}'
        )
    mend = 'give both files the same categories in the same order'
    return [Finding('error', what, mend, 'classes')]


def check_evaluated_images(
    report: FileReport, reports: Sequence[FileReport]
) -> list[Finding]:
    """Images that are shown to the model, and that the evaluator does not know."""
    split = split_of(report)
    if report.table is None or report.source.folder is None or split == 'train':
        return []
    evaluators = [r for r in reports if f'{split}_evaluator' in prefixes(r) and r.table]
    if not evaluators or report in evaluators:
        return []
    known = {i for r in evaluators if r.table for i in r.table.image_ids}
    strange = [i for i in report.table.image_ids if i not in known]
    if not strange:
        return []
    path = evaluators[0].source.path
    return [
        Finding(
            'error',
            f'image that {split}_evaluator.ann_file={path} does not know',
            f'name the same file in {split}_dataloader and {split}_evaluator',
            'image',
            strange,
        )
    ]


def split_of(report: FileReport) -> str:
    return report.source.fields[0].split('_')[0]


def prefixes(report: FileReport) -> set[str]:
    return {name.split('.')[0] for name in report.source.fields}
