"""Masks as polygons that a person can correct.

Frame: x, y with pixel (row i, column j) covering j..j+1, i..i+1, as COCO and labelling
tools have it; its centre is (j + 0.5, i + 0.5).
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from contourpy import FillType, contour_generator

# A corner may move this many pixels when points are left out.
TOLERANCE = 0.6


def polygons_of(mask: np.ndarray, tolerance: float = TOLERANCE) -> list[np.ndarray]:
    """Outlines of a mask.

    Args:
        mask: ``(H, W)`` uint8 or bool.
        tolerance: Points are left out as long as the outline moves no further, in
            pixels.

    Returns:
        One ``(k, 2)`` float polygon for each part, largest first, not repeating its
        first point. Polygons have no holes in these formats: a hole is cut open by a
        bridge of no width from the outline to it and back.
    """
    x, y, width, height = cv2.boundingRect(np.asarray(mask, np.uint8))
    if not width:
        return []
    crop = np.pad(mask[y : y + height, x : x + width], 1).astype(np.float32)
    contours = contour_generator(z=crop, fill_type=FillType.OuterOffset)
    polygons = []
    # Half-way between pixels inside and outside, that is on the pixels' edges.
    for points, offsets in zip(*contours.filled(0.5, 2), strict=True):
        rings = [
            simplified(points[start : end - 1], tolerance)
            for start, end in zip(offsets[:-1], offsets[1:], strict=True)
        ]
        # The padding is one pixel, and pixel centres lie at halves.
        polygons.append(cut_open(rings[0], rings[1:]) + (x - 0.5, y - 0.5))
    return sorted(polygons, key=polygon_area, reverse=True)


def simplified(ring: np.ndarray, tolerance: float) -> np.ndarray:
    """Leave points out; a ring too small for that stays whole."""
    ring = ring.astype(np.float32)
    fewer = cv2.approxPolyDP(ring, tolerance, closed=True)[:, 0]
    return (fewer if len(fewer) > 2 else ring).astype(float)


def cut_open(outline: np.ndarray, holes: Sequence[np.ndarray]) -> np.ndarray:
    """Join rings ``(k, 2)`` into one that runs around all of them.

    The nearest hole comes first, so that its bridge crosses no other.
    """
    rest = list(holes)
    while rest:
        distances = [
            np.linalg.norm(outline[:, None] - hole[None], axis=-1) for hole in rest
        ]
        number = int(np.argmin([d.min() for d in distances]))
        here, there = np.unravel_index(
            distances[number].argmin(), distances[number].shape
        )
        hole = np.roll(rest.pop(number), -there, axis=0)
        outline = np.concatenate([outline[: here + 1], hole, hole[:1], outline[here:]])
    return outline


def polygon_area(polygon: np.ndarray) -> float:
    """Square pixels that a polygon encloses."""
    x, y = polygon.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
