"""Extent and area of many COCO segmentations at once.

Shape shorthand: A annotations, P polygons, R run-length codes (RLE), K run lengths.
Bounds are x1, y1, x2, y2 in pixels of the picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask


class MaskKind(IntEnum):
    """What stands under `segmentation`."""

    NONE = 0  # absent, null or empty
    POLYGONS = 1  # a list of [x1, y1, x2, y2, ...]
    RLE = 2  # {'size': [height, width], 'counts': ...}
    UNKNOWN = 3


@dataclass(frozen=True)
class MaskTable:
    """One row an annotation.

    Attributes:
        kind: (A,) of `MaskKind`.
        bounds: (A, 4), NaN where there is no point or pixel, or the RLE is broken.
        area: (A,) square pixels: of the polygons, not counting overlaps, or of the
            RLE's foreground; NaN where unknown.
        short: (A,) bool, a polygon has fewer than 3 points.
        odd: (A,) bool, a polygon has an odd number of coordinates.
        finite: (A,) bool, False where a coordinate is NaN or infinite.
        rle_size: (A, 2) height and width that the RLE states, 0 without RLE.
        broken: (A,) bool, the RLE does not add up to its size.
    """

    kind: np.ndarray
    bounds: np.ndarray
    area: np.ndarray
    short: np.ndarray
    odd: np.ndarray
    finite: np.ndarray
    rle_size: np.ndarray
    broken: np.ndarray


def measure_masks(segmentations: Iterable[Any], count: int) -> MaskTable:
    """Measure the `segmentation` fields of `count` annotations, whatever they hold."""
    table = MaskTable(
        kind=np.zeros(count, np.int8),
        bounds=np.full((count, 4), np.nan),
        area=np.full(count, np.nan),
        short=np.zeros(count, bool),
        odd=np.zeros(count, bool),
        finite=np.ones(count, bool),
        rle_size=np.zeros((count, 2), np.int64),
        broken=np.zeros(count, bool),
    )
    polygons: list[tuple[int, np.ndarray]] = []
    codes: list[tuple[int, dict]] = []
    for row, value in enumerate(segmentations):
        if not value:
            continue
        if isinstance(value, dict) and {'size', 'counts'} <= value.keys():
            table.kind[row] = MaskKind.RLE
            codes.append((row, value))
            continue
        parts = polygon_parts(value)
        table.kind[row] = MaskKind.UNKNOWN if parts is None else MaskKind.POLYGONS
        polygons += [(row, part) for part in parts or []]
    measure_polygons(table, polygons)
    measure_codes(table, codes)
    return table


def polygon_parts(value: Any) -> list[np.ndarray] | None:
    """The polygons of a list of coordinate lists as arrays; None for anything else."""
    if not isinstance(value, list) or not all(isinstance(p, list) for p in value):
        return None
    try:
        parts = [np.array(part, np.float64) for part in value]
    except (TypeError, ValueError, OverflowError):
        return None
    return parts if all(part.ndim == 1 for part in parts) else None


def measure_polygons(table: MaskTable, polygons: list[tuple[int, np.ndarray]]) -> None:
    """Fill the rows of `table` that (row, coordinates) of P polygons name."""
    for row, part in polygons:
        table.short[row] |= part.size < 6
        table.odd[row] |= part.size % 2 == 1
    whole = [(row, part[: part.size // 2 * 2]) for row, part in polygons]
    whole = [(row, part) for row, part in whole if part.size]
    if not whole:
        return
    rows = np.array([row for row, _ in whole])
    points = np.concatenate([part for _, part in whole]).reshape(-1, 2)
    lengths = np.array([part.size // 2 for _, part in whole])
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    with np.errstate(invalid='ignore', over='ignore'):
        bounds, areas = polygon_bounds(points, starts), polygon_areas(points, starts)
    table.finite[rows[~np.isfinite(bounds).all(1)]] = False
    low, high = (np.full((len(table.kind), 2), s * np.inf) for s in (1, -1))
    np.minimum.at(low, rows, bounds[:, :2])
    np.maximum.at(high, rows, bounds[:, 2:])
    present = np.unique(rows)
    table.bounds[present] = np.hstack([low, high])[present]
    table.area[present] = 0
    np.add.at(table.area, rows, areas)


def polygon_bounds(points: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(P, 4) bounds of polygons that lie in `points`, (N, 2), from `starts`, (P,)."""
    low = np.minimum.reduceat(points, starts)
    return np.hstack([low, np.maximum.reduceat(points, starts)])


def polygon_areas(points: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(P,) areas by the shoelace formula, of polygons as in `polygon_bounds`."""
    following = np.arange(1, len(points) + 1)
    following[np.append(starts[1:], len(points)) - 1] = starts
    x, y = points.T
    return np.abs(np.add.reduceat(x * y[following] - x[following] * y, starts)) / 2


def measure_codes(table: MaskTable, codes: list[tuple[int, dict]]) -> None:
    """Fill the rows of `table` that (row, RLE) of R codes name."""
    for row, code in codes:
        table.rle_size[row] = stated_size(code['size'])
    rows = np.array([row for row, _ in codes], int)
    wanted = table.rle_size[rows].prod(1)
    counts = [
        compressed(code['counts'], pixels)
        for (_, code), pixels in zip(codes, wanted, strict=True)
    ]
    total, foreground = rle_sums([text or b'' for text in counts])
    sound = (wanted > 0) & (total == wanted)
    table.broken[rows[~sound]] = True
    table.area[rows[sound]] = foreground[sound]
    full = np.flatnonzero(sound & (foreground > 0))
    if full.size:
        boxes = coco_mask.toBbox(
            [
                dict(size=table.rle_size[rows[i]].tolist(), counts=counts[i])
                for i in full
            ]
        )
        table.bounds[rows[full]] = boxes + np.pad(boxes[:, :2], ((0, 0), (2, 0)))


def stated_size(size: Any) -> tuple[int, int]:
    """Height and width, or zeros where `size` is no such pair."""
    if isinstance(size, list) and len(size) == 2:
        height, width = size
        if type(height) is type(width) is int and min(size) > 0:
            # What pycocotools counts in.
            return (height, width) if height * width < 2**31 else (0, 0)
    return 0, 0


def compressed(counts: Any, pixels: int) -> bytes | None:
    """COCO's compressed form of `counts`; None where they cannot be its form."""
    if isinstance(counts, str) and counts.isascii():
        return counts.encode()
    if not isinstance(counts, list) or not all(type(n) is int for n in counts):
        return None
    if min(counts, default=0) < 0 or sum(counts) != pixels:
        return None
    # Any shape will do: the code holds only the runs.
    code = dict(size=[int(pixels), 1], counts=counts)
    return coco_mask.frPyObjects(code, int(pixels), 1)['counts']


def rle_sums(codes: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and foreground pixels of R compressed run-length codes, (R,) each.

    The format: each run length is a signed number of 5 bits a byte, low bits first,
    bit 5 says that it goes on, all bytes plus 48; from the fourth on a number is the
    difference to the one two before. Runs of background and foreground alternate.
    The sum of such a chain of differences needs no loop: a difference counts once
    for itself and once for every run of its chain that follows.

    A code that is no such text has -1 pixels.
    """
    sizes = np.array([len(code) for code in codes], int)
    total = np.full(len(codes), -1, np.int64)
    foreground = total.copy()
    data = np.frombuffer(b''.join(codes), np.uint8).astype(np.int64) - 48
    if not data.size:
        return total, foreground
    code_of = np.repeat(np.arange(len(codes)), sizes)
    code_start = np.append(True, code_of[1:] != code_of[:-1])
    goes_on = data & 32 > 0
    start = code_start | np.append(True, ~goes_on[:-1])
    first = np.flatnonzero(start)
    place = np.arange(data.size) - first[np.cumsum(start) - 1]
    end = np.append(first[1:], data.size) - 1
    values = np.add.reduceat((data & 31) << 5 * np.minimum(place, 11), first)
    values -= np.where(data[end] & 16, 1 << 5 * (np.minimum(place[end], 10) + 1), 0)

    runs_of = code_of[first]
    runs = np.bincount(runs_of, minlength=len(codes))
    index = np.arange(first.size) - (np.cumsum(runs) - runs)[runs_of]
    weight = np.where(index == 0, 1, (runs[runs_of] - 1 - index) // 2 + 1)
    filled = np.flatnonzero(sizes)
    code_first = np.flatnonzero(code_start[first])
    total[filled] = np.add.reduceat(values * weight, code_first)
    foreground[filled] = np.add.reduceat(values * weight * (index % 2), code_first)

    code_end = np.cumsum(sizes)[filled] - 1
    bad = np.concatenate(
        [code_of[(data < 0) | (data > 63) | (place > 6)], filled[goes_on[code_end]]]
    )
    total[bad] = foreground[bad] = -1
    return total, foreground
