"""The annotations of a COCO file as NumPy columns, so that rules are one line each.

Nothing is taken for granted: a field that is missing or of another type leaves NaN
or -1 in its column, and a rule counts it.

Shape shorthand: A annotations, I images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from .masks import MaskTable, measure_masks

T = TypeVar('T')
# Shows how far a loop has come: (items, what it does with them) -> the items.
Track = Callable[[Sequence[T], str], Iterable[T]]
COCO_SERVER = 'http://images.cocodataset.org/'


@dataclass(frozen=True)
class AnnotationTable:
    """One row an annotation and one an image, in the order of the file.

    Attributes:
        images: The file's `images`.
        annotations: The file's `annotations`; of a panoptic file its segments.
        categories: The file's `categories`.
        image_ids: (I,) ids, None where there is none.
        image_sizes: (I, 2) width and height, NaN where they are no positive numbers.
        ids: (A,) ids of the annotations, None where there is none.
        image: (A,) row of the image; -1 where its id is unknown.
        category: (A,) row of the category; -1 where its id is unknown.
        has_box: (A,) bool, `bbox` holds four numbers.
        boxes: (A, 4) x1, y1, width, height in pixels; NaN without a box.
        has_area: (A,) bool.
        area: (A,) square pixels, NaN without.
        crowd: (A,) bool.
        masks: The `segmentation` fields.
        panoptic: The masks are in PNG files.
    """

    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    image_ids: list[Hashable]
    image_sizes: np.ndarray
    ids: list[Hashable]
    image: np.ndarray
    category: np.ndarray
    has_box: np.ndarray
    boxes: np.ndarray
    has_area: np.ndarray
    area: np.ndarray
    crowd: np.ndarray
    masks: MaskTable
    panoptic: bool

    @property
    def picture(self) -> np.ndarray:
        """(A, 2) width and height of the annotation's picture, NaN where unknown."""
        sizes = np.vstack([self.image_sizes, [[np.nan, np.nan]]])
        return sizes[self.image]

    @property
    def corners(self) -> np.ndarray:
        """(A, 4) boxes as x1, y1, x2, y2."""
        return np.hstack([self.boxes[:, :2], self.boxes[:, :2] + self.boxes[:, 2:]])

    def file_name(self, row: int) -> str:
        """Of an image; LVIS has the address on COCO's server instead."""
        image = self.images[row]
        name = image.get('file_name') or image.get('coco_url') or ''
        return str(name).removeprefix(COCO_SERVER)


def make_table(coco: dict[str, Any], track: Track) -> AnnotationTable:
    """Put what `read_annotations` returns into columns."""
    images, annotations = coco['images'], coco['annotations']
    categories = coco['categories']
    image_ids = [identity(image.get('id')) for image in images]
    category_ids = [identity(category.get('id')) for category in categories]
    # Of two equal ids the later one counts, as in pycocotools.
    image_rows = {name: row for row, name in enumerate(image_ids)}
    category_rows = {name: row for row, name in enumerate(category_ids)}
    for rows in (image_rows, category_rows):
        rows.pop(None, None)
    boxes = np.array([box_of(a.get('bbox')) for a in annotations], float)
    return AnnotationTable(
        images=images,
        annotations=annotations,
        categories=categories,
        image_ids=image_ids,
        image_sizes=np.array(
            [(side(i.get('width')), side(i.get('height'))) for i in images], float
        ).reshape(-1, 2),
        ids=[identity(a.get('id')) for a in annotations],
        image=lookup(annotations, 'image_id', image_rows),
        category=lookup(annotations, 'category_id', category_rows),
        has_box=np.array([is_box(a.get('bbox')) for a in annotations], bool),
        boxes=boxes.reshape(-1, 4),
        has_area=np.array([is_number(a.get('area')) for a in annotations], bool),
        area=np.array([number(a.get('area')) for a in annotations], float),
        crowd=np.array([bool(a.get('iscrowd')) for a in annotations], bool),
        masks=measure_masks(
            (a.get('segmentation') for a in track(annotations, 'masks')),
            len(annotations),
        ),
        panoptic=coco.get('panoptic', False),
    )


def lookup(items: list[dict], field: str, rows: dict[Hashable, int]) -> np.ndarray:
    """(A,) row that `field` of each item names, -1 where it names none."""
    return np.array([rows.get(identity(i.get(field)), -1) for i in items], int)


def identity(value: Any) -> Hashable:
    """An id as it can be looked up; lists and objects are none."""
    return value if isinstance(value, (int, float, str)) else None


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def number(value: Any) -> float:
    """The number, infinity where it is too large for a float, NaN where it is none."""
    try:
        return float(value) if is_number(value) else math.nan
    except OverflowError:
        return math.inf


def side(value: Any) -> float:
    """A width or height in pixels, NaN where there can be none."""
    return number(value) if is_number(value) and value > 0 else math.nan


def is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(is_number, value))


def box_of(value: Any) -> list[float]:
    return [number(n) for n in value] if is_box(value) else [math.nan] * 4
