"""Which detection is which object, and what kind of mistake is left.

pycocotools matches within a class; to see one class taken for another, all classes
have to be matched together, which is done here.

Shape shorthand: n detections of one picture by falling score, m objects; ``ious``
is ``(n, m)``, for a crowd the share of the detection that lies in it.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from .evaluated_run import EvaluatedRun

IOU = 0.5  # from here on a detection is an object
NEAR = 0.1  # from here on it is about an object


class Verdict(Enum):
    """What a detection turned out to be."""

    RIGHT = 'right'
    CROWD = 'in a crowd'  # neither right nor wrong, as in COCO
    CLASS = 'wrong class'
    DOUBLE = 'found twice'
    OUTLINE = 'poor outline'  # overlaps an object of its class, not enough
    NOTHING = 'nothing there'


MISTAKES = (Verdict.CLASS, Verdict.DOUBLE, Verdict.OUTLINE, Verdict.NOTHING)


class Matches(NamedTuple):
    """Of one picture.

    Attributes:
        verdicts: Of each detection.
        objects: ``(n,)`` the object that is found, rightly or under another name; -1
            without one.
    """

    verdicts: list[Verdict]
    objects: np.ndarray


class MatchedPicture(NamedTuple):
    """Detections, objects and matches of one picture.

    Attributes:
        number: Id of the picture.
        detections: Results at or above the threshold, by falling score.
        weaker: Those below it.
        objects: Annotations, crowds among them.
        matches: Of ``detections`` and ``objects``.
    """

    number: int
    detections: list[dict]
    weaker: list[dict]
    objects: list[dict]
    matches: Matches


def match(
    ious: np.ndarray, labels: np.ndarray, truth_labels: np.ndarray, crowd: np.ndarray
) -> Matches:
    """Give each object to the best detection, its own class first.

    Args:
        ious: ``(n, m)``.
        labels: ``(n,)`` classes of the detections.
        truth_labels: ``(m,)`` classes of the objects.
        crowd: ``(m,)`` bool.
    """
    same = labels[:, None] == truth_labels
    objects = np.full(len(labels), -1)
    give(objects, np.where(same & ~crowd, ious, 0.0))
    named = objects.copy()
    in_crowd = (ious * (same & crowd)).max(1, initial=0.0) >= IOU
    give(objects, np.where(~same & ~crowd & ~in_crowd[:, None], ious, 0.0))
    own = (ious * (same & ~crowd)).max(1, initial=0.0)
    best = (ious * ~crowd).max(1, initial=0.0)
    verdicts = np.select(
        [named >= 0, in_crowd, objects >= 0, best >= IOU, own >= NEAR],
        list(range(5)),
        default=5,
    )
    kinds = list(Verdict)
    return Matches([kinds[number] for number in verdicts], objects)


def give(objects: np.ndarray, ious: np.ndarray) -> None:
    """Fill ``objects`` where it is -1: the free object of the largest IoU, in order."""
    for d in np.flatnonzero(objects < 0):
        free = ious[d].copy()
        free[objects[objects >= 0]] = 0.0
        if free.max(initial=0.0) >= IOU:
            objects[d] = free.argmax()


def match_pictures(run: EvaluatedRun, score_thr: float) -> list[MatchedPicture]:
    """Match every picture; only detections at or above ``score_thr`` can match."""
    pictures = []
    for number in sorted(run.truth.imgs):
        found = counted(run, run.results[run.kind], number)
        found.sort(key=lambda entry: -entry['score'])
        detections = [entry for entry in found if entry['score'] >= score_thr]
        objects = counted(run, run.truth, number)
        matches = match(
            overlaps(run, detections, objects),
            np.array([entry['category_id'] for entry in detections], int),
            np.array([entry['category_id'] for entry in objects], int),
            np.array([is_crowd(entry) for entry in objects], bool),
        )
        weaker = found[len(detections) :]
        pictures.append(MatchedPicture(number, detections, weaker, objects, matches))
    return pictures


def counted(run: EvaluatedRun, entries: COCO, number: int) -> list[dict]:
    """Entries of a picture whose class counts."""
    return [
        entry
        for entry in entries.imgToAnns.get(number, [])
        if entry['category_id'] in run.categories
    ]


def is_crowd(entry: dict) -> bool:
    return bool(entry.get('iscrowd', 0))


def overlaps(
    run: EvaluatedRun, detections: list[dict], objects: list[dict]
) -> np.ndarray:
    """IoU ``(n, m)`` of masks, or of boxes where the run has no masks."""
    if not detections or not objects:
        return np.zeros((len(detections), len(objects)))
    if run.kind == 'segm':
        first = [run.results['segm'].annToRLE(entry) for entry in detections]
        second = [run.truth.annToRLE(entry) for entry in objects]
    else:
        first = [entry['bbox'] for entry in detections]
        second = [entry['bbox'] for entry in objects]
    return coco_mask.iou(first, second, [int(is_crowd(entry)) for entry in objects])


def confusion(run: EvaluatedRun, pictures: list[MatchedPicture]) -> np.ndarray:
    """Counts ``(K + 1, K + 1)``: what is there, by what was said.

    The last row is no object, the last column no detection. Every object that is no
    crowd counts once, in its row; a detection in a crowd does not count.
    """
    place = {number: k for k, number in enumerate(run.categories)}
    nothing = len(place)
    table = np.zeros((nothing + 1, nothing + 1), int)
    for picture in pictures:
        there = [place[entry['category_id']] for entry in picture.objects]
        for entry, verdict, index in zip(
            picture.detections, *picture.matches, strict=True
        ):
            if verdict is not Verdict.CROWD:
                row = there[index] if index >= 0 else nothing
                table[row, place[entry['category_id']]] += 1
        for entry in missed(picture):
            table[place[entry['category_id']], nothing] += 1
    return table


def missed(picture: MatchedPicture) -> list[dict]:
    """Objects that no detection found, under whatever name."""
    found = set(picture.matches.objects.tolist())
    return [
        entry
        for index, entry in enumerate(picture.objects)
        if index not in found and not is_crowd(entry)
    ]
