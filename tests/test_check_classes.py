"""Classes of file, metainfo and model: every contradiction in plain words."""

from __future__ import annotations

import pytest
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from tiny_centermask import CONFIGS
from tiny_coco import annotation, sound_coco, write_coco

from mmdet_centermask.checks.classes import (
    check_counts,
    check_names,
    class_counts,
    labels_of,
)
from mmdet_centermask.checks.report import in_one_line

FRUIT = ('apple', 'pear', 'plum')


def categories(*names: str) -> list[dict]:
    return [dict(id=i, name=name) for i, name in enumerate(names, 1)]


def lines(findings) -> list[str]:
    return [f'{finding.severity}: {in_one_line(finding)}' for finding in findings]


def test_number_of_classes_in_the_words_of_the_issue():
    findings = check_counts(dict(num_classes=80), dict(classes=FRUIT))
    assert lines(findings) == [
        'error: the data has 3 classes, the model 80: set num_classes=3; background is '
        'not counted'
    ]
    assert check_counts(dict(num_classes=3), dict(classes=FRUIT)) == []


def test_every_head_is_looked_at():
    heads = dict(bbox_head=dict(num_classes=4), mask_head=dict(num_classes=4))
    iou_head = dict(mask_iou_head=dict(num_classes=3))
    model = dict(
        roi_head=dict(heads, **iou_head),
        semantic_head=dict(num_classes=183),
        backbone=dict(num_classes=1000),
        rpn_head=dict(num_classes=1),
    )
    assert lines(check_counts(model, dict(classes=FRUIT))) == [
        'error: the data has 3 classes, the model 4: set num_classes=3 in '
        'model.roi_head.bbox_head.num_classes, model.roi_head.mask_head.num_classes; '
        'background is not counted'
    ]


def test_cascade_of_heads_and_a_wrapped_model():
    cascade = dict(roi_head=dict(bbox_head=[dict(num_classes=8), dict(num_classes=8)]))
    assert [field for field, _, _ in class_counts(cascade)] == [
        'model.roi_head.bbox_head.0.num_classes',
        'model.roi_head.bbox_head.1.num_classes',
    ]
    wrapped = dict(type='MaskTTAModel', module=dict(num_classes=80))
    assert list(class_counts(wrapped)) == [
        ('model.module.num_classes', 'num_classes', 80)
    ]


def test_things_and_stuff():
    metainfo = dict(
        classes=(*FRUIT, 'sky', 'grass'),
        thing_classes=FRUIT,
        stuff_classes=('sky', 'grass'),
    )
    model = dict(num_classes=3, num_stuff_classes=2)
    assert check_counts(model, metainfo) == []
    assert lines(check_counts(dict(num_classes=5, num_stuff_classes=53), metainfo)) == [
        'error: the data has 3 things, the model 5: set num_classes=3; background is '
        'not counted',
        'error: the data has 2 stuff classes, the model 53: set num_stuff_classes=2; '
        'background is not counted',
    ]


@pytest.mark.parametrize(
    'name, counts',
    [
        ('quickstart/centermask-lite_v19-slim-dw_fpn_quickstart', {'num_classes': 5}),
        (
            'quickstart/panoptic-centermask_v19-slim-dw_fpn_quickstart',
            {'num_classes': 5, 'num_stuff_classes': 2},
        ),
        ('vovnet/cascade-mask-rcnn_v39_fpn_ms-3x_coco', {'num_classes': 80}),
    ],
)
def test_counts_of_our_configs(name, counts):
    model = Config.fromfile(CONFIGS / f'{name}.py').model
    found = list(class_counts(model))
    assert {(kind, number) for _, kind, number in found} == set(counts.items())
    assert len(found) == (4 if 'cascade' in name else len(counts))


def test_agreement_is_silent():
    assert check_names(categories(*FRUIT), FRUIT, True) == []


def test_another_order_is_shouted():
    (finding,) = check_names(categories('apple', 'plum', 'pear'), FRUIT, True)
    assert lines([finding]) == [
        "warning: CLASS ORDER: 2 of 3 labels carry a wrong name; label 1 is 'plum' in "
        "the file and 'pear' in metainfo.classes: write metainfo.classes in the order "
        "of the file: ('apple', 'plum', 'pear'); AP does not show it, every picture "
        'and every result does'
    ]
    # Data sets that count labels in their own way are left alone.
    assert check_names(categories('apple', 'plum', 'pear'), FRUIT, False) == []


def test_labels_are_those_of_mmdet(tmp_path):
    """A file in another order, with a category that nobody asked for."""
    names = ('plum', 'stone', 'apple', 'pear')
    coco = sound_coco()
    coco['categories'] = [dict(id=9 - i, name=name) for i, name in enumerate(names)]
    coco['annotations'] = [
        annotation(i, [1, 1, 9, 9], category=c['id'], caption=c['name'])
        for i, c in enumerate(coco['categories'])
    ]
    dataset = CocoDataset(
        ann_file=str(write_coco(tmp_path / 'a.json', coco)),
        metainfo=dict(classes=FRUIT),
        data_prefix=dict(img=''),
    )
    by_id = {c['id']: c['name'] for c in coco['categories']}
    mmdets = [by_id[category] for category in dataset.cat_ids]
    assert labels_of(coco['categories'], FRUIT) == mmdets == ['plum', 'apple', 'pear']


def test_missing_class_that_moves_labels_is_an_error():
    found = check_names(categories('apple', 'plum'), FRUIT, True)
    assert [finding.severity for finding in found] == ['error', 'warning']
    assert found[0].what == (
        "metainfo.classes names 3 classes, the file has 2 of them; not 'pear'"
    )
    assert "label 1 is 'plum' in the file and 'pear'" in found[1].what


def test_missing_last_class_moves_nothing():
    (finding,) = check_names(categories('apple', 'pear'), FRUIT, True)
    assert finding.severity == 'warning' and finding.offenders == ['plum']


def test_no_class_in_the_file_is_a_forgotten_metainfo():
    classes = CocoDataset.METAINFO['classes']
    found = check_names(categories('nut', 'fig'), classes, True)
    assert lines(found[:1])[0].startswith(
        'error: metainfo.classes names 80 classes, the file has 0 of them; not '
    )
    assert found[0].mend == (
        "set metainfo=dict(classes=('nut', 'fig')), the names in the file, and "
        'num_classes=2'
    )


def test_left_out_category_is_told():
    (finding,) = check_names(categories('apple', 'stone', 'pear', 'plum'), FRUIT, True)
    assert finding.severity == 'info' and finding.offenders == ['stone']


def test_classes_without_a_comma():
    (finding,) = check_names(categories('apple'), 'apple', True)
    assert lines([finding]) == [
        "error: metainfo.classes='apple' is a string, not a list of names: write a "
        "comma: classes=('apple',)"
    ]
