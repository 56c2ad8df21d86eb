"""Extents and areas of many masks at once, against pycocotools and by hand."""

from __future__ import annotations

import numpy as np
from pycocotools import mask as coco_mask

from mmdet_centermask.checks.masks import (
    MaskKind,
    measure_masks,
    polygon_areas,
    polygon_bounds,
    rle_sums,
)


def random_codes(count: int) -> list[dict]:
    """Masks of all densities and sizes up to 40 x 40, empty and full ones too."""
    rng = np.random.default_rng(0)
    codes = []
    for _ in range(count):
        shape = rng.integers(1, 40, 2)
        density = rng.choice([0, 0.01, 0.5, 0.99, 1])
        mask = np.asfortranarray(rng.random(shape) < density, np.uint8)
        codes.append(coco_mask.encode(mask))
    return codes


def test_sums_of_codes_are_those_of_pycocotools():
    codes = random_codes(400)
    total, foreground = rle_sums([code['counts'] for code in codes])
    assert total.tolist() == [np.prod(code['size']) for code in codes]
    assert foreground.tolist() == [int(coco_mask.area(code)) for code in codes]


def test_long_runs():
    """Runs of up to 2^28 pixels take six bytes."""
    counts = [5, 2**28, 1, 2**28, 3, 7]
    code = coco_mask.frPyObjects(dict(size=[1, sum(counts)], counts=counts), 1, 1)
    total, foreground = rle_sums([code['counts']])
    assert total == [sum(counts)] and foreground == [2**29 + 7]


def test_what_is_no_code_has_no_pixels():
    """Nothing, bytes below and above the alphabet, a number that does not end."""
    good = coco_mask.encode(np.asfortranarray(np.eye(4, dtype=np.uint8)))['counts']
    total, foreground = rle_sums([b'', good, b'\x10', b'~', good + b'o', good])
    assert total.tolist() == [-1, 16, -1, -1, -1, 16]
    assert foreground.tolist() == [-1, 4, -1, -1, -1, 4]
    assert [a.size for a in rle_sums([])] == [0, 0]


def test_bounds_and_areas_of_polygons():
    triangle = [[0, 0], [4, 0], [0, 3]]
    square = [[10, 10], [10, 12], [12, 12], [12, 10]]  # the other way round
    points, starts = np.array(triangle + square, float), np.array([0, 3])
    assert polygon_areas(points, starts).tolist() == [6, 4]
    assert polygon_bounds(points, starts).tolist() == [[0, 0, 4, 3], [10, 10, 12, 12]]


def test_measures_of_all_kinds():
    code = random_codes(30)[-1]
    text = dict(size=list(code['size']), counts=code['counts'].decode())
    parts = [[0, 0, 4, 0, 0, 3], [10, 10, 12, 10, 12, 12, 10, 12]]
    numbers = dict(size=[4, 3], counts=[5, 2, 5])  # rows 1 and 2 of column 1
    table = measure_masks([None, parts, text, numbers, 'mask'], 5)
    assert table.kind.tolist() == [
        MaskKind.NONE,
        MaskKind.POLYGONS,
        MaskKind.RLE,
        MaskKind.RLE,
        MaskKind.UNKNOWN,
    ]
    assert table.area[[1, 3]].tolist() == [10, 2]
    assert table.area[2] == coco_mask.area(code)
    assert table.bounds[1].tolist() == [0, 0, 12, 12]
    x, y, width, height = coco_mask.toBbox(code)
    assert table.bounds[2].tolist() == [x, y, x + width, y + height]
    assert table.bounds[3].tolist() == [1, 1, 2, 3]
    assert np.isnan(table.bounds[[0, 4]]).all()
    assert not table.broken.any()


def test_sizes_that_crash_pycocotools_are_broken():
    """It divides by the height, and multiplies in 32 bits."""
    for size in ([0, 5], [-1, -5], [2**20, 2**20], [2.0, 3.0], 'ab', [4], None):
        table = measure_masks([dict(size=size, counts='0')], 1)
        assert table.broken.tolist() == [True], size
