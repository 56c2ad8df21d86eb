"""How two answers are compared, by hand; AP of perfect and poor answers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmdet_centermask.deploy.accuracy import average_precisions
from mmdet_centermask.deploy.benchmark import Engine, as_table, measure
from mmdet_centermask.deploy.int8 import Int8Verdict
from mmdet_centermask.deploy.parity import Difference, difference


def found(*objects) -> dict:
    """Objects as (box, label, score); masks fill their box, 40 x 40."""
    masks = np.zeros((len(objects), 40, 40), bool)
    for mask, ((x1, y1, x2, y2), _, _) in zip(masks, objects, strict=True):
        mask[round(y1) : round(y2), round(x1) : round(x2)] = True
    scores = np.array([score for _, _, score in objects], float)
    return dict(
        boxes=np.array([box for box, _, _ in objects], float).reshape(-1, 4),
        labels=np.array([label for _, label, _ in objects], int),
        scores=scores,
        mask_scores=scores / 2,
        masks=masks,
    )


def test_difference_by_hand():
    one = found(((0, 0, 10, 10), 0, 0.9), ((5, 5, 20, 20), 1, 0.5))
    other = found(((5.04, 5, 20, 20), 1, 0.5), ((0, 0, 10, 10.4), 0, 0.8))
    other['masks'][1, 0] = False  # nine rows of ten
    apart = difference(one, other)
    assert apart == Difference(
        (2, 2), 0, pytest.approx(0.4), pytest.approx(0.1), pytest.approx(0.9)
    )
    assert not apart.within_limits


def test_objects_without_a_partner_are_counted():
    one = found(((0, 0, 10, 10), 0, 0.9), ((5, 5, 20, 20), 1, 0.5))
    other = found(((0, 0, 10, 10), 1, 0.9), ((5, 5, 20, 22), 1, 0.5))
    assert difference(one, other).unmatched == 4
    # Mask scores of 0.45 and 0.25, of each twice.
    assert difference(one, other, score_thr=0.3).unmatched == 2
    assert difference(one, found()).unmatched == 2
    assert difference(found(), found()) == Difference((0, 0), 0, 0, 0, 1)


@pytest.mark.parametrize(
    'values, within',
    [
        ((0, 0.05, 1e-3, 0.99), True),
        ((1, 0, 0, 1), False),
        ((0, 0.051, 0, 1), False),
        ((0, 0, 1.1e-3, 1), False),
        ((0, 0, 0, 0.98), False),
    ],
)
def test_limits(values, within):
    assert Difference((3, 3), *values).within_limits is within


@pytest.fixture
def dataset(tmp_path) -> Config:
    """Two pictures with a square each, as a config."""
    annotations = []
    for i in (0, 1):
        Image.new('RGB', (40, 40), (i, 0, 0)).save(tmp_path / f'{i}.png')
        annotations.append(
            dict(
                id=i + 1,
                image_id=i,
                category_id=1,
                iscrowd=0,
                area=400,
                bbox=[10, 10, 20, 20],
                segmentation=[[10, 10, 30, 10, 30, 30, 10, 30]],
            )  # fmt: skip
        )
    images = [dict(id=i, file_name=f'{i}.png', height=40, width=40) for i in (0, 1)]
    truth = dict(
        images=images, annotations=annotations, categories=[dict(id=1, name='a')]
    )
    (tmp_path / 'truth.json').write_text(json.dumps(truth))
    return Config(
        dict(
            test_dataloader=dict(
                dataset=dict(
                    type='CocoDataset',
                    data_root=str(tmp_path),
                    ann_file='truth.json',
                    data_prefix=dict(img=''),
                    metainfo=dict(classes=('a',)),
                    test_mode=True,
                    pipeline=[],
                )
            ),
            test_evaluator=dict(
                type='CocoMetric',
                ann_file=str(tmp_path / 'truth.json'),
                metric=['bbox', 'segm'],
            ),
        )
    )


def test_average_precision_by_the_configs_metric(dataset):
    perfect = found(((10, 10, 30, 30), 0, 0.9))
    aps = average_precisions(lambda picture: perfect, dataset)
    assert aps['coco/bbox_mAP'] == aps['coco/segm_mAP'] == 1

    def half(picture):
        """Right on the first picture alone; its red is 0."""
        return perfect if picture[0, 0, 0] == 0 else found()

    # One of two objects: precision 1 up to recall 0.5, at 51 of 101 points.
    assert average_precisions(half, dataset)['coco/segm_mAP'] == 0.505
    assert average_precisions(half, dataset, limit=1)['coco/segm_mAP'] == 1


@pytest.mark.parametrize('lost, holds', [(0.01, True), (0.011, False)])
def test_int8_may_lose_a_point(lost, holds):
    floats = {'coco/bbox_mAP': 0.5, 'coco/segm_mAP': 0.4, 'coco/segm_mAP_50': 0.9}
    int8 = dict(floats)
    int8['coco/segm_mAP_50'] = 0.2  # told, but not what decides
    int8['coco/bbox_mAP'] = round(0.5 - lost, 3)
    assert Int8Verdict(floats, int8).holds is holds


def test_engines_see_the_same_pictures_in_turn():
    calls = []

    class Fake:
        def __init__(self, name):
            self.name = name

        def prepare(self, picture):
            return picture.transpose(2, 0, 1), np.ones(2)

        def find(self, image, scale, size, score_thr):
            calls.append((self.name, int(image[0, 0, 0])))

    pictures = [np.full((2, 2, 3), i, np.uint8) for i in (1, 2)]
    engines = [Engine(name, Fake(name)) for name in ('a', 'b')]
    aps = [{'coco/bbox_mAP': 0.5, 'coco/segm_mAP': 0.4}, {}]
    results = measure(engines, pictures, rounds=1, precisions=aps)
    assert calls == [('a', 1), ('b', 1), ('a', 2), ('b', 2)] * 2
    assert results[0].speedup == 1
    table = as_table([r._replace(milliseconds=20, speedup=2) for r in results])
    assert table.splitlines()[2:] == [
        '| a | 20 | 2.00 x | 0.500 | 0.400 |',
        '| b | 20 | 2.00 x | - | - |',
    ]
