"""Missing, unreadable, cut off, rotated, resized: each told apart, by header alone."""

from __future__ import annotations

import mmcv
import numpy as np
import pytest
from PIL import Image
from tiny_coco import sound_coco, write_pictures

from mmdet_centermask.checks.annotation_table import make_table
from mmdet_centermask.checks.pictures import check_pictures, picture_defect

SIZE = np.array([100, 80])  # width, height
FORMATS = ['jpg', 'png', 'bmp', 'gif']


@pytest.fixture
def picture() -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 255, (80, 100, 3)).astype(np.uint8))


@pytest.mark.parametrize('kind', FORMATS)
def test_whole_picture(kind, picture, tmp_path):
    path = tmp_path / f'a.{kind}'
    picture.save(path)
    assert picture_defect(str(path), SIZE, decode=False) is None
    assert picture_defect(str(path), SIZE, decode=True) is None


@pytest.mark.parametrize('kind', ['jpg', 'png'])
@pytest.mark.parametrize('share', [0.5, 0.99])
def test_truncated_picture_without_decoding_the_others(kind, share, picture, tmp_path):
    path = tmp_path / f'a.{kind}'
    picture.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert picture_defect(str(path), SIZE, decode=False) == 'truncated picture'


def test_damage_inside_needs_decoding(picture, tmp_path):
    path = tmp_path / 'a.png'
    picture.save(path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    path.write_bytes(content)
    assert picture_defect(str(path), SIZE, decode=False) is None
    assert picture_defect(str(path), SIZE, decode=True) == 'truncated picture'


def test_appended_data_is_no_truncation(picture, tmp_path):
    """Cameras append previews and notes; only decoding tells."""
    path = tmp_path / 'a.jpg'
    picture.save(path)
    path.write_bytes(path.read_bytes() + b'maker note' * 50)
    assert picture_defect(str(path), SIZE, decode=False) is None


def test_no_picture_at_all(tmp_path):
    path = tmp_path / 'a.jpg'
    path.write_text('<html>404 not found</html>')
    assert picture_defect(str(path), SIZE, decode=False) == 'unreadable picture'
    path.write_bytes(b'')
    assert picture_defect(str(path), SIZE, decode=False) == 'unreadable picture'
    assert (
        picture_defect(str(tmp_path / 'b.jpg'), SIZE, False) == 'missing picture file'
    )


@pytest.mark.parametrize('kind', ['jpg', 'png', 'webp'])
@pytest.mark.parametrize('orientation, turns', [(1, False), (3, False), (6, True)])
def test_exif_is_read_as_mmcv_does(kind, orientation, turns, picture, tmp_path):
    path = tmp_path / f'a.{kind}'
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(path, exif=exif.tobytes())
    height, width = mmcv.imread(path).shape[:2]  # what training sees
    assert (width, height) == ((80, 100) if turns else (100, 80))
    stated = picture_defect(str(path), SIZE, decode=False)
    assert stated == ('picture rotated by its EXIF tag' if turns else None)
    assert picture_defect(str(path), np.array([width, height]), False) is None


def test_other_size(picture, tmp_path):
    path = tmp_path / 'a.png'
    picture.save(path)
    for size in ([100, 81], [200, 160], [80, 100]):
        assert picture_defect(str(path), np.array(size), False) == (
            'picture of another size than the JSON states'
        )
    assert picture_defect(str(path), np.array([np.nan, np.nan]), False) is None


def test_findings_name_files(tmp_path):
    write_pictures(tmp_path)
    coco = sound_coco()
    coco['images'][0]['width'] = 101
    coco['images'].append(dict(id=3, file_name='gone/3.png', width=9, height=9))
    coco['images'].append(dict(id=4, width=9, height=9))  # has no name to look for
    table = make_table(coco, lambda items, doing: items)
    found = check_pictures(table, str(tmp_path), lambda items, doing: items)
    assert [(f.severity, f.what, list(f.offenders), list(f.rows)) for f in found] == [
        ('error', 'missing picture file', ['gone/3.png'], [2]),
        ('error', 'picture of another size than the JSON states', ['1.png'], [0]),
    ]
    some = check_pictures(table, str(tmp_path), lambda items, doing: items, rows=[0])
    assert [f.what for f in some] == ['picture of another size than the JSON states']


def test_lvis_names_pictures_by_their_address(tmp_path):
    coco = sound_coco()
    coco['images'][0] = dict(
        id=1,
        width=100,
        height=80,
        coco_url='http://images.cocodataset.org/train2017/000000391895.jpg',
    )
    table = make_table(coco, lambda items, doing: items)
    assert table.file_name(0) == 'train2017/000000391895.jpg'
