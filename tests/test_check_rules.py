"""A defect put into a sound file is found, counted exactly, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest
from mmdet.datasets import CocoDataset
from tiny_coco import CLASSES, annotation, rle, sound_coco, write_coco

from mmdet_centermask.checks.annotation_file import read_annotations
from mmdet_centermask.checks.annotation_table import make_table
from mmdet_centermask.checks.rules import RULES, apply_rules

ALL_USES = {'masks', 'evaluation'}
NAN = float('nan')


def untracked(items, doing):
    return items


def found(coco: dict, uses=ALL_USES) -> dict:
    """{defect: offenders} in `coco`."""
    findings = apply_rules(make_table(coco, untracked), set(uses))
    return {finding.what: list(finding.offenders) for finding in findings}


def change(number: int, **fields):
    """A defect: other fields in annotation 11, 12 or 13."""
    return lambda coco: coco['annotations'][number - 11].update(fields)


def remove(number: int, field: str):
    return lambda coco: coco['annotations'][number - 11].pop(field)


def add(*args, **fields):
    return lambda coco: coco['annotations'].append(annotation(*args, **fields))


def image(**fields):
    return lambda coco: coco['images'].append({'id': 3, **fields})


def category(**fields):
    return lambda coco: coco['categories'].append(fields)


FINE = dict(file_name='3.png', width=100, height=80)
TRUTH = {
    # Fields
    'no width': (
        image(file_name='3.png', height=80),
        {
            'image without id, file_name, width or height': [3],
            'image without an annotation': [3],
        },
    ),
    'size of zero': (
        lambda c: c['images'][1].update(height=0),
        {'image without id, file_name, width or height': [2]},
    ),
    'no box': (
        remove(11, 'bbox'),
        {'annotation without id, image_id, category_id, bbox or area': [11]},
    ),
    'three numbers': (
        change(12, bbox=[1, 2, 3]),
        {'annotation without id, image_id, category_id, bbox or area': [12]},
    ),
    'numbers as text': (
        change(12, bbox=['50', '40', '40', '30']),
        {'annotation without id, image_id, category_id, bbox or area': [12]},
    ),
    'no area': (
        remove(13, 'area'),
        {'annotation without id, image_id, category_id, bbox or area': [13]},
    ),
    'no id': (
        remove(13, 'id'),
        {'annotation without id, image_id, category_id, bbox or area': ['number 2']},
    ),
    'no iscrowd': (remove(12, 'iscrowd'), {'annotation without iscrowd': [12]}),
    'NaN box': (
        change(11, bbox=[10, NAN, 40, 50]),
        {'NaN or infinity in bbox, area or segmentation': [11]},
    ),
    'infinite area': (
        change(11, area=float('inf')),
        {'NaN or infinity in bbox, area or segmentation': [11]},
    ),
    'number beyond floats': (
        change(11, area=10**400),
        {'NaN or infinity in bbox, area or segmentation': [11]},
    ),
    'NaN polygon': (
        change(11, segmentation=[[10, 5, 50, NAN, 50, 55]]),
        {'NaN or infinity in bbox, area or segmentation': [11]},
    ),
    'negative width': (
        change(12, bbox=[90, 40, -40, 30]),
        {'negative width or height': [12], 'mask outside its box': [12]},
    ),
    # Ids
    'image twice': (image(**{**FINE, 'id': 2}), {'image id used before': [2]}),
    'annotation twice': (
        add(11, [20, 20, 20, 20]),
        {'annotation id used before': [11]},
    ),
    'category twice': (
        category(id=2, name='plum'),
        {'category id used before': [2]},
    ),
    'name twice': (category(id=3, name='pear'), {'category name used before': [3]}),
    'file twice': (
        image(**{**FINE, 'file_name': '1.png'}),
        {'file_name used before': [3], 'image without an annotation': [3]},
    ),
    'unknown image': (
        add(14, [1, 1, 9, 9], image=7),
        {'annotation of an unknown image': [14]},
    ),
    'unknown category': (
        add(14, [1, 1, 9, 9], category=7),
        {'annotation of an unknown category': [14]},
    ),
    'gaps': (
        lambda c: c['categories'].extend([dict(id=i, name=str(i)) for i in (4, 9, 5)]),
        {'gap before a category id': [4, 9]},
    ),
    'ids from zero': (category(id=0, name='plum'), {}),
    # Boxes
    'zero width': (
        change(11, bbox=[10, 5, 0, 50], segmentation=[[10, 5, 10, 55, 10, 30]]),
        {'box of zero area': [11], 'mask of zero area': [11]},
    ),
    'thin': (
        change(11, bbox=[10, 5, 0.5, 50], segmentation=[[10, 5, 10.5, 5, 10, 55]]),
        {'box thinner than a pixel': [11]},
    ),
    'area of zero': (
        change(11, area=0),
        {'area of zero or less beside a box': [11]},
    ),
    'outside': (
        add(14, [110, 5, 20, 20]),
        {'box wholly outside the picture': [14], 'mask outside the picture': [14]},
    ),
    'two across, the worse first': (
        lambda c: c['annotations'].extend(
            [annotation(14, [95, 5, 9, 9]), annotation(15, [-20, 5, 40, 9])]
        ),
        {
            'box reaches out of the picture': [15, 14],
            'mask outside the picture': [15, 14],
        },
    ),
    'across by less than COCO itself': (add(14, [95, 5, 6.9, 9]), {}),
    # Masks
    'no segmentation': (remove(11, 'segmentation'), {'box without a mask': [11]}),
    'empty list': (change(11, segmentation=[]), {'box without a mask': [11]}),
    'empty polygon': (
        change(11, segmentation=[[]]),
        {'polygon of fewer than 3 points': [11]},
    ),
    'one point': (
        change(11, segmentation=[[20, 20]]),
        {'polygon of fewer than 3 points': [11]},
    ),
    'two points beside a triangle': (
        change(11, segmentation=[[20, 20, 30, 30], [20, 20, 30, 20, 20, 30]]),
        {'polygon of fewer than 3 points': [11]},
    ),
    'seven coordinates': (
        change(11, segmentation=[[20, 20, 30, 20, 20, 30, 25]]),
        {'polygon with an odd number of coordinates': [11]},
    ),
    'one point three times': (
        change(11, segmentation=[[20, 20] * 3]),
        {'mask of zero area': [11]},
    ),
    'flat list': (
        change(11, segmentation=[20, 20, 30, 20, 20, 30]),
        {'segmentation of no known form': [11]},
    ),
    'points as objects': (
        change(11, segmentation=[[{'x': 1, 'y': 2}]]),
        {'segmentation of no known form': [11]},
    ),
    'empty RLE': (
        change(12, segmentation=rle(50, 40, 0, 0)),
        {'mask of zero area': [12]},
    ),
    'RLE of the turned picture': (
        change(12, segmentation=rle(10, 60, 20, 20, size=(100, 80))),
        {'RLE of another size than the picture': [12], 'mask outside its box': [12]},
    ),
    'cut RLE': (
        lambda c: c['annotations'][1].update(
            segmentation=dict(
                size=[80, 100],
                counts=c['annotations'][1]['segmentation']['counts'][:-2],
            )
        ),
        {'RLE that does not add up to its size': [12]},
    ),
    'RLE of numbers': (
        change(12, segmentation=dict(size=[80, 100], counts=[4040, 30, 3930])),
        {},
    ),
    'RLE of too few numbers': (
        change(12, segmentation=dict(size=[80, 100], counts=[4040, 30])),
        {'RLE that does not add up to its size': [12]},
    ),
    'mask outside its box': (
        change(13, bbox=[0, 0, 60, 80]),
        {'mask outside its box': [13]},
    ),
    'mask outside by less than COCO itself': (change(13, bbox=[0, 0, 98.1, 80]), {}),
    # Fine
    'crowd': (change(12, iscrowd=1), {'crowd region': [12]}),
    'empty image': (image(**FINE), {'image without an annotation': [3]}),
}


def test_sound_file():
    assert found(sound_coco()) == {}


@pytest.mark.parametrize('defect', TRUTH)
def test_defect(defect):
    put_in, expected = TRUTH[defect]
    coco = sound_coco()
    put_in(coco)
    assert found(coco) == expected


def test_every_rule_is_in_the_table():
    tested = {what for _, expected in TRUTH.values() for what in expected}
    others = {'RLE mask where only polygons are read'}
    assert tested | others == {rule.what for rule in RULES}


def severity(coco: dict, what: str, uses: set) -> str:
    findings = apply_rules(make_table(coco, untracked), uses)
    (finding,) = [f for f in findings if f.what == what]
    return finding.severity


def test_masks_matter_where_masks_are_read():
    coco = sound_coco()
    remove(11, 'segmentation')(coco)
    assert severity(coco, 'box without a mask', {'masks'}) == 'error'
    assert severity(coco, 'box without a mask', {'evaluation'}) == 'info'


def test_crowd_flags_matter_in_evaluation():
    coco = sound_coco()
    remove(11, 'iscrowd')(coco)
    assert severity(coco, 'annotation without iscrowd', {'evaluation'}) == 'error'
    assert severity(coco, 'annotation without iscrowd', {'masks'}) == 'info'


def test_codes_where_only_polygons_are_read():
    """RLE 12 is lost with poly2mask=False; a crowd is not learnt anyway."""
    what = 'RLE mask where only polygons are read'
    assert found(sound_coco(), {'masks', 'polygons'}) == {what: [12]}
    coco = sound_coco()
    change(12, iscrowd=1)(coco)
    assert found(coco, {'masks', 'polygons'}) == {'crowd region': [12]}


DROPPED = (
    'negative width or height',
    'annotation of an unknown image',
    'annotation of an unknown category',
    'box of zero area',
    'box thinner than a pixel',
    'area of zero or less beside a box',
    'box wholly outside the picture',
)


def test_what_is_called_dropped_is_what_mmdet_drops(tmp_path):
    """On 600 random boxes, among them flat, thin, negative and outside ones."""
    rng = np.random.default_rng(0)
    sides = np.array([-5, 0, 0.5, 1, 20, 20, 50, 50, 200])
    coco = sound_coco()
    coco['annotations'] = [
        annotation(
            number,
            [float(x), float(y), float(w), float(h)],
            image=int(rng.integers(1, 4)),
            category=int(rng.integers(1, 4)),
            area=float(rng.choice([0, 10, 10, 10])),
        )
        for number, (x, y, w, h) in enumerate(
            zip(
                rng.integers(-30, 110, 600),
                rng.integers(-30, 110, 600),
                rng.choice(sides, 600),
                rng.choice(sides, 600),
                strict=True,
            )
        )
    ]
    path = write_coco(tmp_path / 'boxes.json', coco)
    dataset = CocoDataset(
        ann_file=str(path),
        metainfo=dict(classes=CLASSES),
        data_prefix=dict(img=''),
        test_mode=True,
    )
    kept = [
        (info['img_id'], tuple(item['bbox'])) for info in dataset
        for item in info['instances']
    ]  # fmt: skip
    rows = found(read_annotations(path))
    dropped = {number for what in DROPPED for number in rows[what]}
    x1y1wh = {a['id']: a for a in coco['annotations']}
    ours = []
    for number, item in x1y1wh.items():
        if number not in dropped:
            x, y, w, h = item['bbox']
            ours.append((item['image_id'], (x, y, x + w, y + h)))
    assert 50 < len(kept) < 300
    assert sorted(kept) == sorted(ours)
