"""Pasting against MMDetection's, pixel by pixel, and RLE against pycocotools."""

from __future__ import annotations

import resource
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.structures.mask import encode_mask_results
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask

from mmdet_centermask.models.blank_bitmaps import blank_bitmaps
from mmdet_centermask.models.mask_paste import (
    _paste_whole_pictures,
    paste_dense,
    paste_rle,
    rle_of_crop,
)


def some_masks(number=12, size=(50, 80), seed=0, points=28):
    """Noise, which crosses any threshold everywhere, and boxes of all sizes."""
    rng = np.random.default_rng(seed)
    frame = np.array([size[1], size[0]])
    sides = 1 + rng.random((number, 2)) ** 2 * (frame - 1)
    corners = rng.random((number, 2)) * (frame - sides)
    boxes = np.concatenate([corners, corners + sides], 1)
    probabilities = rng.random((number, points, points))
    return (torch.from_numpy(a.astype(np.float32)) for a in (probabilities, boxes))


def stock_paste(probabilities, boxes, size, threshold):
    head = FCNMaskHead(num_convs=0, num_classes=1)
    (result,) = head.predict_by_feat(
        [torch.logit(probabilities.double())[:, None]],
        [InstanceData(bboxes=boxes.clone(), labels=torch.zeros(len(boxes)).long())],
        [dict(ori_shape=size, scale_factor=(1.0, 1.0))],
        ConfigDict(mask_thr_binary=threshold),
    )
    return result.masks


# Bitmaps.
@pytest.mark.parametrize('threshold', [0.1, 0.5, 0.8])
def test_paste_dense_is_the_stock_mask_heads(threshold):
    probabilities, boxes = some_masks(150, (270, 480))
    expected = stock_paste(probabilities, boxes, (270, 480), threshold)
    found = paste_dense(probabilities, boxes, (270, 480), threshold)
    assert found.dtype == torch.bool
    assert 0.005 < expected.float().mean() < 0.5
    # Both round; no pixel of these is that close to the threshold.
    assert (found != expected).sum() == 0


def test_boxes_at_the_edges_of_the_picture():
    boxes = torch.tensor(
        [
            [0.0, 0, 80, 50],
            [0, 0, 0.3, 50],
            [79.7, 49.7, 80, 50],
            [-20, -9.5, 33, 20],
            [60, 30, 200, 70],
            [10.5, 10.5, 30.5, 20.5],  # edges in the middle of pixels
        ]
    )
    probabilities, _ = some_masks(len(boxes))
    for masks in (probabilities, torch.full_like(probabilities, 0.9999)):
        expected = stock_paste(masks, boxes, (50, 80), 0.5)
        assert torch.equal(paste_dense(masks, boxes, (50, 80), 0.5), expected)
        assert expected[0].any() and expected[3:].any(dim=(1, 2)).all()


def test_masks_that_are_not_square_and_of_lower_precision():
    probabilities, boxes = some_masks()
    probabilities = probabilities[:, :14, :7]
    expected = stock_paste(probabilities, boxes, (50, 80), 0.5)
    assert torch.equal(paste_dense(probabilities, boxes, (50, 80), 0.5), expected)
    coarse = probabilities.bfloat16()
    expected = stock_paste(coarse.float(), boxes, (50, 80), 0.5)
    assert torch.equal(paste_dense(coarse, boxes.double(), (50, 80), 0.5), expected)


@pytest.mark.parametrize(
    'box',
    [[90.0, 10, 95, 20], [10, 60, 20, 70], [-9, -9, -3, -3], [30, 10, 30, 20]],
    ids=['right', 'below', 'above', 'no width'],
)
def test_box_that_covers_nothing(box):
    ones = torch.ones(2, 28, 28)
    boxes = torch.tensor([box, [0, 0, 80, 50]])
    assert paste_dense(ones, boxes, (50, 80), 0.5).sum((1, 2)).tolist() == [0, 4000]
    rle = paste_rle(ones, boxes, (50, 80), 0.5)
    assert [coco_mask.area(dict(mask)) for mask in rle] == [0, 4000]


def test_whole_pictures_as_on_a_gpu():
    probabilities, boxes = some_masks()
    found = _paste_whole_pictures(probabilities, boxes, (50, 80), 0.5)
    assert torch.equal(found, paste_dense(probabilities, boxes, (50, 80), 0.5))


def test_inside_a_graph():
    """Called without `no_grad`, as by a script that forgot it."""
    probabilities, boxes = some_masks()
    expected = paste_dense(probabilities, boxes, (50, 80), 0.5)
    probabilities.requires_grad_()
    assert torch.equal(paste_dense(probabilities, boxes, (50, 80), 0.5), expected)


def test_bitmaps_are_an_ordinary_tensor():
    masks = blank_bitmaps((3, 40, 50), np.array([0, 10, 40]), np.array([40, 10, 40]))
    assert masks.shape == (3, 40, 50) and masks.is_contiguous()
    assert not masks.any()
    masks[1, 2, 3] = True
    assert masks.clone().nonzero().tolist() == [[1, 2, 3]]
    assert masks.numpy().sum() == 1
    nothing = np.zeros(0, np.int64)
    assert blank_bitmaps((0, 40, 50), nothing, nothing).shape == (0, 40, 50)


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_bitmaps_take_memory_where_something_is_written():
    def resident_mb():
        pages = int(Path('/proc/self/statm').read_text().split()[1])
        return pages * resource.getpagesize() / 2**20

    before = resident_mb()
    first = np.full(200, 500)
    masks = blank_bitmaps((200, 1080, 1920), first, first + 50)
    masks[:, 500:550, 900:950] = True
    # 200 x 50 rows of 1920 bytes are 18 MB; all of it is 396.
    assert 15 < resident_mb() - before < 60
    assert masks[::50].sum() == 4 * 50 * 50


# RLE.
def encoded(mask: np.ndarray) -> dict:
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


CROPS = {
    'inside': ((2, 3), (4, 5)),
    'top left': ((0, 0), (4, 5)),
    'bottom right': ((6, 7), (4, 5)),
    'full height': ((0, 4), (10, 3)),
    'full width': ((4, 0), (3, 12)),
    'whole picture': ((0, 0), (10, 12)),
    'one pixel': ((9, 11), (1, 1)),
    'nothing': ((10, 3), (0, 4)),
    'nothing across': ((2, 12), (4, 0)),
}


@pytest.mark.parametrize('density', [0.0, 0.2, 0.8, 1.0])
@pytest.mark.parametrize('place', CROPS)
def test_rle_of_crop_is_the_rle_of_the_picture(place, density):
    (row, column), (height, width) = CROPS[place]
    rng = np.random.default_rng(0)
    for _ in range(20):
        crop = rng.random((height, width)) < density
        full = np.zeros((10, 12), bool)
        full[row : row + height, column : column + width] = crop
        assert rle_of_crop(crop, (row, column), (10, 12)) == encoded(full)


def test_paste_rle_is_paste_dense():
    probabilities, boxes = some_masks(60)
    dense = paste_dense(probabilities, boxes, (50, 80), 0.5)
    rle = paste_rle(probabilities, boxes, (50, 80), 0.5)
    assert (rle.to_ndarray() == dense.numpy()).all()
    assert [dict(mask) for mask in rle] == encode_mask_results(dense.numpy())


@pytest.mark.parametrize('paste', [paste_dense, paste_rle])
def test_no_masks(paste):
    assert paste(torch.zeros(0, 28, 28), torch.zeros(0, 4), (50, 80), 0.5).shape == (
        *(0, 50, 80),
    )


# The command.
def test_benchmark_paste(capsys):
    tool = runpy.run_path(
        str(Path(__file__).parents[1] / 'tools' / 'benchmark_paste.py')
    )
    threads = torch.get_num_threads()
    options = '--instances 5 --size 90 160 --threads 1 --repeats 2 --many 7'
    try:
        tool['main'](tool['parse_args'](options.split()))
    finally:
        torch.set_num_threads(threads)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith('5 masks into 90 x 160')
    assert [line.split(' | ')[0] for line in lines[4:]] == [
        '| MMDetection',
        '| bitmap',
        '| rle',
    ]
    assert [line.split(' | ')[4] for line in lines[4:]] == ['0', '0', '0']
