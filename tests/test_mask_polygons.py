"""Masks to polygons and back, by COCO's rasteriser and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mmdet_centermask.inference.mask_polygons import polygon_area, polygons_of


def disc(radius: float, centre: tuple[float, float] = (40, 36), size=(72, 80)):
    """Pixels whose centre is nearer than `radius` to `centre` (x, y)."""
    ys, xs = np.mgrid[: size[0], : size[1]] + 0.5
    return (xs - centre[0]) ** 2 + (ys - centre[1]) ** 2 < radius**2


SHAPES = dict(
    disc=disc(20),
    ring=disc(30) & ~disc(14),
    # Two holes and an island in one of them.
    buttons=(disc(30) & ~disc(9, (28, 36)) & ~disc(9, (52, 36))) | disc(4, (52, 36)),
    two_parts=disc(12, (20, 20)) | disc(9, (60, 50)),
    at_the_edge=disc(30, (0, 0)),
    everything=np.ones((72, 80), bool),
)


def rasterised(polygons: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    rles = coco_mask.frPyObjects([p.ravel().tolist() for p in polygons], *size)
    return coco_mask.decode(coco_mask.merge(rles)).astype(bool)


def inside(polygon: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels whose centre a ray leaves the polygon from, by the even-odd rule."""
    ys, xs = np.mgrid[: size[0], : size[1]] + 0.5
    result = np.zeros(size, bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y0 != y1:
            crosses = (y0 > ys) != (y1 > ys)
            result ^= crosses & (xs < (x1 - x0) * (ys - y0) / (y1 - y0) + x0)
    return result


@pytest.mark.parametrize('name', SHAPES)
def test_without_tolerance_every_pixel_comes_back(name):
    mask = SHAPES[name]
    polygons = polygons_of(mask, tolerance=0)
    np.testing.assert_array_equal(rasterised(polygons, mask.shape), mask)
    by_hand = np.logical_or.reduce([inside(p, mask.shape) for p in polygons])
    np.testing.assert_array_equal(by_hand, mask)


@pytest.mark.parametrize('name', SHAPES)
def test_few_points_are_close(name):
    mask = SHAPES[name]
    polygons = polygons_of(mask)
    back = rasterised(polygons, mask.shape)
    assert (back & mask).sum() / (back | mask).sum() > 0.96
    # Of the hundreds of steps that the pixels' edges have.
    assert sum(map(len, polygons)) <= 90


def test_a_square_is_four_corners_on_the_edges_of_its_pixels():
    mask = np.zeros((10, 12), np.uint8)
    mask[2:6, 3:9] = 1
    (polygon,) = polygons_of(mask, tolerance=1.0)
    assert len(polygon) == 4
    np.testing.assert_allclose(polygon.min(0), (3, 2), atol=0.51)
    np.testing.assert_allclose(polygon.max(0), (9, 6), atol=0.51)
    assert polygon_area(np.array([(3, 2), (9, 2), (9, 6), (3, 6)])) == 24


def test_parts_and_nothing():
    large, small = polygons_of(SHAPES['two_parts'])
    assert large[:, 0].max() < 40 < small[:, 0].min()
    assert polygons_of(np.zeros((5, 6), np.uint8)) == []
    speck = np.zeros((5, 6), np.uint8)
    speck[2, 3] = 1
    (polygon,) = polygons_of(speck)
    assert len(polygon) >= 3
    np.testing.assert_array_equal(polygon.mean(0), (3.5, 2.5))
