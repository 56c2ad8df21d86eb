"""The worst mistakes of a run, each with what it should have been."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .evaluated_run import EvaluatedRun
from .matching import MISTAKES, MatchedPicture, Verdict, missed, overlaps


class Mistake(NamedTuple):
    """One mistake.

    Attributes:
        picture: Id of the picture.
        verdict: None for an object that was missed.
        detection: What was said; for a miss, the detection of any score that
            overlaps it most.
        truth: What is there; for a false alarm, the object it overlaps most.
        iou: Of the two, 0 where one is missing.
    """

    picture: int
    verdict: Verdict | None
    detection: dict | None
    truth: dict | None
    iou: float


def count_verdicts(pictures: Sequence[MatchedPicture]) -> dict[Verdict, int]:
    counts = Counter(v for picture in pictures for v in picture.matches.verdicts)
    return {verdict: counts[verdict] for verdict in Verdict}


def worst_false_alarms(
    run: EvaluatedRun, pictures: Sequence[MatchedPicture], number: int
) -> list[Mistake]:
    """The mistaken detections of the highest scores."""
    found = [
        (entry['score'], picture, entry, verdict)
        for picture in pictures
        for entry, verdict in zip(
            picture.detections, picture.matches.verdicts, strict=True
        )
        if verdict in MISTAKES
    ]
    found.sort(key=lambda row: -row[0])
    mistakes = []
    for _, picture, entry, verdict in found[:number]:
        ious = overlaps(run, [entry], picture.objects)[0]
        truth, iou = most(picture.objects, ious)
        mistakes.append(Mistake(picture.number, verdict, entry, truth, iou))
    return mistakes


def worst_misses(
    run: EvaluatedRun, pictures: Sequence[MatchedPicture], number: int
) -> list[Mistake]:
    """The objects that were not found, the largest part of their picture first."""
    found = [
        (entry['area'] / area_of(run, picture.number), picture, entry)
        for picture in pictures
        for entry in missed(picture)
    ]
    found.sort(key=lambda row: -row[0])
    mistakes = []
    for _, picture, entry in found[:number]:
        detections = picture.detections + picture.weaker
        ious = overlaps(run, detections, [entry])[:, 0]
        detection, iou = most(detections, ious)
        mistakes.append(Mistake(picture.number, None, detection, entry, iou))
    return mistakes


def most(entries: list[dict], ious: np.ndarray) -> tuple[dict | None, float]:
    """The entry of the largest overlap, if there is any overlap."""
    if not ious.max(initial=0.0):
        return None, 0.0
    return entries[ious.argmax()], float(ious.max())


def area_of(run: EvaluatedRun, number: int) -> float:
    picture = run.truth.imgs[number]
    return picture['height'] * picture['width']
