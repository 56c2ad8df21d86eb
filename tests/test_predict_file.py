"""predict.py, the file that is shipped: its arithmetic against OpenCV and mmdet."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask
from PIL import Image
from skimage import data as photographs

from mmdet_centermask.deploy import predict
from mmdet_centermask.deploy.predict import Predictor, draw, load_picture, paste

INFO = dict(
    scale=None,
    scale_factor=1.0,
    channels='BGR',
    mean=[103.53, 116.28, 123.675],
    std=[1.0, 2.0, 4.0],
    pad_value=0,
    pad_size_divisor=32,
    mask_threshold=0.5,
    classes=['cat', 'dog'],
)


def predictor(**info) -> Predictor:
    """One without a network."""
    empty = Predictor.__new__(Predictor)
    empty.info = {**INFO, **info}
    return empty


@pytest.mark.parametrize(
    'info, step',
    [
        (dict(scale=[333, 200]), dict(scale=(333, 200))),  # smaller
        (dict(scale=[1333, 800]), dict(scale=(1333, 800))),  # larger
        (dict(scale_factor=1.5), dict(scale_factor=1.5)),
        (dict(scale_factor=0.3), dict(scale_factor=0.3)),
    ],
)
def test_pictures_are_prepared_as_mmdet_does(info, step):
    picture = photographs.chelsea()[:251]  # 251 x 451
    pipeline = Compose([dict(type='mmdet.Resize', keep_ratio=True, **step)])
    expected = pipeline(dict(img=picture[..., ::-1].copy()))
    image, scale = predictor(**info).prepare(picture)
    assert scale == pytest.approx(expected['scale_factor'])
    pixels = (expected['img'] - np.array(INFO['mean'])) / np.array(INFO['std'])
    assert image.shape == pixels.transpose(2, 0, 1).shape
    # OpenCV's short integers lose an eighth of a grey level on the average.
    levels = np.abs(image - pixels.transpose(2, 0, 1)) * [[[1]], [[2]], [[4]]]
    assert levels.max() <= 1.01
    assert levels.mean() < 0.15


def test_rgb_networks_get_rgb():
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[..., 0] = 200
    plain = dict(mean=[0, 0, 0], std=[1, 1, 1])
    for channels, plane in (('RGB', 0), ('BGR', 2)):
        image, _ = predictor(channels=channels, **plain).prepare(picture)
        assert image[plane].min() == 200
        assert image.sum() == 200 * 32 * 32


@pytest.mark.parametrize('size, padded', [((32, 64), (32, 64)), ((33, 1), (64, 32))])
def test_padding_is_below_and_to_the_right(size, padded):
    image = predictor(pad_value=7).pad(np.ones((3, *size), np.float32))
    assert image.shape == (3, *padded)
    assert image[:, : size[0], : size[1]].min() == 1
    assert image.sum() == 3 * (np.prod(size) + 7 * (np.prod(padded) - np.prod(size)))


@pytest.mark.parametrize(
    'box',
    [
        (10.3, 5.2, 40.9, 33.1),
        (0, 0, 60, 50),  # the whole picture
        (0, 10, 1.5, 10.4),  # thinner than a pixel
        (59.2, 48.7, 60, 50),  # in the last corner
        (20, 20, 48, 48),  # a pixel a cell
    ],
)
def test_paste_is_mmdets(box):
    mask = np.random.default_rng(0).random((28, 28)).astype(np.float32)
    canvas = np.zeros((50, 60), bool)
    paste(canvas, np.float32(box), mask, 0.5)
    expected, _ = _do_paste_mask(
        torch.from_numpy(mask)[None, None], torch.tensor([box]), 50, 60, False
    )
    differ = canvas != (expected[0].numpy() >= 0.5)
    # Only where a value is the threshold, but for the last bit.
    assert np.abs(expected[0].numpy()[differ] - 0.5).max(initial=0) < 1e-5


def test_network_outputs_become_objects():
    """By hand: half the size, one below the threshold, masks of 0 and 1, best first."""
    one = predictor(scale_factor=0.5)
    masks = np.zeros((3, 28, 28), np.float32)
    masks[2, :14] = 1  # the upper half
    one.run = lambda images, sizes: [
        np.array([0, 0, 0]),
        np.array([[6, 6, 9, 9], [0, 0, 5, 5], [2, 4, 12, 14]], np.float32),
        np.array([0, 0, 1]),
        np.array([0.95, 0.9, 0.8], np.float32),
        np.array([0.4, 0.1, 0.7], np.float32),
        masks,
    ]
    found = one(np.zeros((40, 60, 3), np.uint8), score_thr=0.3)
    assert found['boxes'].tolist() == [[4, 8, 24, 28], [12, 12, 18, 18]]
    assert found['labels'].tolist() == [1, 0]
    assert found['scores'] == pytest.approx([0.8, 0.95])
    assert found['mask_scores'] == pytest.approx([0.7, 0.4])
    assert found['masks'].shape == (2, 40, 60)
    assert not found['masks'][1].any()
    rows, columns = np.nonzero(found['masks'][0])
    assert (rows.min(), rows.max()) == (8, 17)
    assert (columns.min(), columns.max()) == (4, 23)


def test_pictures_are_turned_as_the_camera_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    Image.new('L', (20, 10)).save(tmp_path / 'a.png', exif=exif)
    assert load_picture(tmp_path / 'a.png').shape == (20, 10, 3)


def test_drawing_colours_masks_apart():
    picture = np.zeros((40, 60, 3), np.uint8)
    masks = np.zeros((2, 40, 60), bool)
    masks[0, 20:30, 5:15] = masks[1, 20:30, 35:45] = True
    found = dict(boxes=np.array([[5, 20, 15, 30], [35, 20, 45, 30]]), masks=masks)
    image = np.asarray(draw(picture, found, ['cat 0.9', 'dog 0.8'])).astype(int)
    one, other = image[25, 10], image[25, 40]
    assert one.max() > 100 and other.max() > 100
    assert np.abs(one - other).max() > 60
    assert not image[38, 58].any()


def test_file_needs_nothing_but_numpy_and_pillow_to_be_imported():
    """A list by the parser, since this process has everything."""
    tree = ast.parse(Path(predict.__file__).read_text(encoding='utf-8'))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split('.')[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names.add(node.module.split('.')[0])
    others = names - set(sys.stdlib_module_names)
    assert others == {'numpy', 'PIL', 'onnxruntime', 'openvino'}
