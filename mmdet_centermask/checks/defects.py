"""What can be wrong with annotations, a function a defect.

Each looks at the columns of an `AnnotationTable` and returns the rows that have the
defect, the worst first where there is a worst.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from .annotation_table import AnnotationTable, identity, is_number
from .masks import MaskKind

# COCO's own boxes are up to one pixel off their masks and pictures.
TOLERANCE = 2.0
ANNOTATION_FIELDS = ('id', 'image_id', 'category_id')

Rows = np.ndarray  # (n,) int


def rows_where(flags: np.ndarray, badness: np.ndarray | None = None) -> Rows:
    """Rows whose flag is set, those of the largest `badness` first."""
    rows = np.flatnonzero(flags)
    if badness is not None:
        rows = rows[np.argsort(-badness[rows], kind='stable')]
    return rows


def repeated(values: Sequence[Hashable]) -> Rows:
    """Rows whose value an earlier row has already."""
    seen: set[Hashable] = set()
    rows = []
    for row, value in enumerate(values):
        if value is not None and value in seen:
            rows.append(row)
        seen.add(value)
    return np.array(rows, int)


def finite_box(t: AnnotationTable) -> np.ndarray:
    return t.has_box & np.isfinite(t.boxes).all(1)


def overhang(bounds: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """(A,) pixels that x1, y1, x2, y2 reach out of a frame; NaN stays inside."""
    with np.errstate(invalid='ignore'):
        out = np.hstack([frame[:, :2] - bounds[:, :2], bounds[:, 2:] - frame[:, 2:]])
    return np.nan_to_num(out, nan=0.0, posinf=np.inf, neginf=-np.inf).max(1, initial=0)


def picture_frame(t: AnnotationTable) -> np.ndarray:
    return np.hstack([np.zeros((len(t.ids), 2)), t.picture])


# Numbers and fields


def incomplete(t: AnnotationTable) -> Rows:
    lacking = [any(a.get(f) is None for f in ANNOTATION_FIELDS) for a in t.annotations]
    return rows_where(np.array(lacking, bool) | ~t.has_box | ~t.has_area)


def incomplete_images(t: AnnotationTable) -> Rows:
    nameless = [i is None or not t.file_name(r) for r, i in enumerate(t.image_ids)]
    return rows_where(np.array(nameless, bool) | np.isnan(t.image_sizes).any(1))


def without_crowd_flag(t: AnnotationTable) -> Rows:
    return rows_where(
        np.array([not is_flag(a.get('iscrowd')) for a in t.annotations], bool)
    )


def is_flag(value: object) -> bool:
    return isinstance(value, bool) or is_number(value)


def not_finite(t: AnnotationTable) -> Rows:
    boxes = t.has_box & ~np.isfinite(t.boxes).all(1)
    return rows_where(boxes | (t.has_area & ~np.isfinite(t.area)) | ~t.masks.finite)


def negative(t: AnnotationTable) -> Rows:
    return rows_where(
        finite_box(t) & (t.boxes[:, 2:] < 0).any(1), -t.boxes[:, 2:].min(1)
    )


# Ids


def repeated_images(t: AnnotationTable) -> Rows:
    return repeated(t.image_ids)


def repeated_annotations(t: AnnotationTable) -> Rows:
    return repeated(t.ids)


def repeated_categories(t: AnnotationTable) -> Rows:
    return repeated([identity(c.get('id')) for c in t.categories])


def repeated_names(t: AnnotationTable) -> Rows:
    return repeated([identity(c.get('name')) for c in t.categories])


def repeated_files(t: AnnotationTable) -> Rows:
    return repeated([t.file_name(row) or None for row in range(len(t.images))])


def unknown_image(t: AnnotationTable) -> Rows:
    return rows_where((t.image < 0) & known_field(t, 'image_id'))


def unknown_category(t: AnnotationTable) -> Rows:
    return rows_where((t.category < 0) & known_field(t, 'category_id'))


def known_field(t: AnnotationTable, name: str) -> np.ndarray:
    return np.array([a.get(name) is not None for a in t.annotations], bool)


def category_gaps(t: AnnotationTable) -> Rows:
    """Rows of the categories before whose id another one would fit."""
    ids = np.array([number_or_nan(c.get('id')) for c in t.categories], float)
    order = np.argsort(ids, kind='stable')
    with np.errstate(invalid='ignore'):
        return order[
            np.flatnonzero(np.diff(ids[order], prepend=ids.min(initial=1)) > 1)
        ]


def number_or_nan(value: object) -> float:
    return float(value) if type(value) is int else np.nan


# Boxes


def flat_boxes(t: AnnotationTable) -> Rows:
    sides = t.boxes[:, 2:]
    return rows_where(finite_box(t) & (sides == 0).any(1) & (sides >= 0).all(1))


def thin_boxes(t: AnnotationTable) -> Rows:
    sides = t.boxes[:, 2:]
    return rows_where(finite_box(t) & (sides > 0).all(1) & (sides < 1).any(1))


def without_area(t: AnnotationTable) -> Rows:
    return rows_where(finite_box(t) & (t.boxes[:, 2:] > 0).all(1) & (t.area <= 0))


def inside(t: AnnotationTable) -> np.ndarray:
    """(A,) square pixels of the box that lie in the picture, NaN where unknown."""
    with np.errstate(invalid='ignore', over='ignore'):
        high = np.minimum(t.corners[:, 2:], t.picture)
        return np.maximum(high - np.maximum(t.corners[:, :2], 0), 0).prod(1)


def boxes_outside(t: AnnotationTable) -> Rows:
    positive = finite_box(t) & (t.boxes[:, 2:] > 0).all(1)
    return rows_where(
        positive & (inside(t) == 0), overhang(t.corners, picture_frame(t))
    )


def boxes_across(t: AnnotationTable) -> Rows:
    out = overhang(t.corners, picture_frame(t))
    return rows_where(finite_box(t) & (inside(t) > 0) & (out > TOLERANCE), out)


# Masks


def box_only(t: AnnotationTable) -> Rows:
    return rows_where(t.masks.kind == MaskKind.NONE)


def unknown_masks(t: AnnotationTable) -> Rows:
    return rows_where(t.masks.kind == MaskKind.UNKNOWN)


def short_polygons(t: AnnotationTable) -> Rows:
    return rows_where(t.masks.short)


def odd_polygons(t: AnnotationTable) -> Rows:
    return rows_where(t.masks.odd & ~t.masks.short)


def flat_masks(t: AnnotationTable) -> Rows:
    return rows_where((t.masks.area == 0) & ~t.masks.short)


def broken_codes(t: AnnotationTable) -> Rows:
    return rows_where(t.masks.broken)


def codes_of_another_size(t: AnnotationTable) -> Rows:
    stated = t.masks.rle_size
    known = np.isfinite(t.picture).all(1) & (stated > 0).all(1)
    return rows_where(known & (stated != t.picture[:, ::-1]).any(1))


def codes_without_crowd(t: AnnotationTable) -> Rows:
    return rows_where((t.masks.kind == MaskKind.RLE) & ~t.crowd)


def masks_outside_box(t: AnnotationTable) -> Rows:
    out = overhang(t.masks.bounds, t.corners)
    return rows_where(finite_box(t) & (out > TOLERANCE), out)


def masks_outside_picture(t: AnnotationTable) -> Rows:
    out = overhang(t.masks.bounds, picture_frame(t))
    return rows_where((t.masks.kind == MaskKind.POLYGONS) & (out > TOLERANCE), out)


# What is fine


def crowds(t: AnnotationTable) -> Rows:
    return rows_where(t.crowd)


def empty_images(t: AnnotationTable) -> Rows:
    used = {t.image_ids[row] for row in t.image[t.image >= 0]}
    return rows_where(np.array([i not in used for i in t.image_ids], bool))
