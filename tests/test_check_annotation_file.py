"""A file that is no COCO JSON is told apart in one line, and never opened as code."""

from __future__ import annotations

import gzip
import json
import pickle

import pytest
from tiny_coco import sound_coco, write_coco

from mmdet_centermask.checks.annotation_file import (
    AnnotationFileError,
    read_annotations,
    read_categories,
    why_not_coco,
)

SOUND = json.dumps(sound_coco())
LABELME = dict(version='5.0', shapes=[], imagePath='1.png', imageData='A' * 99)
FOREIGN = {
    b'': 'is empty',
    b' \n\n': 'is empty',
    gzip.compress(SOUND.encode()): 'is gzip-compressed',
    pickle.dumps(sound_coco()): 'looks like a Python pickle',
    b'PK\x03\x04rest': 'is a zip archive',
    SOUND.encode('utf-16'): 'is UTF-16',
    b'\xef\xbb\xbf' + SOUND.encode(): 'begins with a byte-order mark',
    b'[]': 'is a JSON list',
    b'[{"image_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]': 'is a list of detections',
    b'0 0.5 0.5 0.1 0.2\n1 0.2 0.2 0.1 0.1\n': 'looks like YOLO labels',
    b'3 .5 .5 1e-1 .2 .7 .7\n': 'looks like YOLO labels',
    b'<annotation><object/></annotation>': 'is XML',
    b'name,x,y\n': 'is no JSON',
    json.dumps(LABELME).encode(): 'looks like labelme',
    b'{"metainfo": {}, "data_list": []}': "looks like OpenMMLab's own format",
    b'{"1.png": {"filename": "1.png", "regions": []}}': 'looks like the VGG Image',
    b'{"images": []}': 'is JSON without "categories"',
    b'{}': 'is JSON without "images" and "categories"',
    SOUND.encode()[:-40]: 'ends in the middle',
    b'\x89PNG\r\n': 'is a PNG picture',
}


@pytest.mark.parametrize('content', FOREIGN, ids=FOREIGN.values())
def test_foreign_files(content, tmp_path):
    path = tmp_path / 'train.json'
    path.write_bytes(content)
    assert why_not_coco(path).startswith(FOREIGN[content])
    with pytest.raises(AnnotationFileError) as error:
        read_annotations(path)
    assert str(error.value).startswith(f'{path} {FOREIGN[content]}')
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    'content, message',
    [
        ('{"images": [], "categories": [}', 'is broken JSON: Expecting value: line 1'),
        ('{"images": {}, "categories": []}', '"images" is a dict, not a list'),
        ('{"images": [], "categories": [3]}', 'categories[0] is 3, not an object'),
        ('{"x": "\\"images\\", \\"categories\\""}', 'is JSON without'),
        (
            '{"images": [], "categories": [], "annotations": [{"segments_info": 1}]}',
            '"segments_info" is a int, not a list',
        ),
        (
            '{"images": ' + '[' * 10**5 + ', "categories": []}',
            'is broken JSON',
        ),
    ],
)
def test_files_that_only_begin_well(content, message, tmp_path):
    path = tmp_path / 'train.json'
    path.write_text(content)
    with pytest.raises(AnnotationFileError) as error:
        read_annotations(path)
    assert message in str(error.value) and '\n' not in str(error.value)


def test_folder(tmp_path):
    assert why_not_coco(tmp_path) == 'is a folder; ann_file names the JSON'


def test_sound_file(tmp_path):
    path = write_coco(tmp_path / 'train.json', sound_coco())
    assert why_not_coco(path) is None
    assert read_annotations(path) == sound_coco()


def test_test_set_without_annotations(tmp_path):
    coco = sound_coco()
    del coco['annotations']
    path = write_coco(tmp_path / 'test.json', coco)
    assert read_annotations(path)['annotations'] == []


def test_panoptic_segments_become_annotations(tmp_path):
    """As in mmdet's COCOPanoptic; a segment id is unique in its picture only."""
    segment = dict(id=5, category_id=1, bbox=[0, 0, 9, 9], area=81, iscrowd=0)
    annotations = [
        dict(image_id=i, file_name=f'{i}.png', segments_info=[segment]) for i in (1, 2)
    ]
    path = write_coco(tmp_path / 'p.json', dict(sound_coco(), annotations=annotations))
    coco = read_annotations(path)
    assert coco['panoptic']
    assert [(a['image_id'], a['id']) for a in coco['annotations']] == [
        (1, '1/5'),
        (2, '2/5'),
    ]
    assert coco['annotations'][0]['bbox'] == [0, 0, 9, 9]


@pytest.mark.parametrize('order', ['last', 'first'])
def test_categories_alone(order, tmp_path):
    coco = sound_coco()
    categories = coco.pop('categories')
    late, early = dict(coco, categories=categories), dict(categories=categories, **coco)
    path = write_coco(tmp_path / 'a.json', late if order == 'last' else early)
    assert read_categories(path) == categories


def test_categories_that_cannot_be_told(tmp_path):
    """The last "categories" of the file are somebody else's."""
    path = write_coco(
        tmp_path / 'a.json', dict(sound_coco(), info=dict(categories=[1]))
    )
    assert read_categories(path) is None
