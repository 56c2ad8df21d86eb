"""The error names the picture; a good picture is what it was."""

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile

import mmdet_centermask  # noqa: F401


@pytest.mark.parametrize('content', [b'', b'no picture at all'], ids=['empty', 'text'])
def test_bad_picture_is_named(tmp_path, content):
    path = tmp_path / 'bad.jpg'
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        LoadImageFromFile()(dict(img_path=str(path)))
    assert str(caught.value).startswith(f'{path}: empty, damaged or no picture (')
    assert '\n' not in str(caught.value)


def test_pipelines_that_pass_over_empty_files_still_do(tmp_path):
    (tmp_path / 'empty.jpg').touch()
    results = dict(img_path=str(tmp_path / 'empty.jpg'))
    assert LoadImageFromFile(ignore_empty=True)(results) is None


def test_missing_picture_stays_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'none\.jpg'):
        LoadImageFromFile()(dict(img_path=str(tmp_path / 'none.jpg')))


def test_good_picture(tmp_path):
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    cv2.imwrite(str(tmp_path / 'good.png'), pixels)
    loaded = LoadImageFromFile()(dict(img_path=str(tmp_path / 'good.png')))
    np.testing.assert_array_equal(loaded['img'], pixels)
    assert loaded['ori_shape'] == (4, 5)
