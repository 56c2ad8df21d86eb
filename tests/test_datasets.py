"""Cityscapes and LVIS: the configs read tiny data of that form and measure it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, METRICS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from pycocotools import mask as coco_mask
from tiny_centermask import CONFIGS

from mmdet_centermask.evaluation.numpy2_metrics import DROPPED, dropped_names

SIZE = (64, 128)
CITY = 'aachen_000000_000019'


def leaf(folder: str, name: str) -> Config:
    init_default_scope('mmdet')
    return Config.fromfile(CONFIGS / folder / f'{name}.py')


def square(row: int, column: int, side: int) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[row : row + side, column : column + side] = 1
    return mask


def annotation(number: int, category: int, mask: np.ndarray) -> dict:
    rle = coco_mask.encode(np.asfortranarray(mask))
    return dict(
        id=number,
        image_id=1,
        category_id=category,
        iscrowd=0,
        area=float(coco_mask.area(rle)),
        bbox=coco_mask.toBbox(rle).tolist(),
        segmentation=polygon(mask),
    )


def polygon(mask: np.ndarray) -> list[list[int]]:
    rows, columns = mask.nonzero()
    x1, y1, x2, y2 = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return [[int(v) for v in (x1, y1, x2, y1, x2, y2, x1, y2)]]


def answer(label: int, mask: np.ndarray, **meta) -> dict:
    """A perfect prediction of one object."""
    rows, columns = mask.nonzero()
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    return dict(
        img_id=1,
        ori_shape=SIZE,
        pred_instances=dict(
            bboxes=torch.tensor([box], dtype=torch.float32),
            scores=torch.tensor([0.9]),
            labels=torch.tensor([label]),
            masks=torch.from_numpy(mask[None].astype(bool)),
            mask_scores=torch.tensor([0.8]),
        ),
        **meta,
    )


@pytest.mark.parametrize('backbone', ['v39', 'r50'])
def test_cityscapes(tmp_path, backbone):
    cfg = leaf('cityscapes', f'centermask_{backbone}_fpn_ms-24k_cityscapes')
    assert cfg.model.backbone.type == dict(v39='VoVNet', r50='ResNet')[backbone]
    assert cfg.train_cfg.max_iters == 24000
    root, mask = tmp_path / 'cityscapes', square(8, 16, 40)
    picture = root / 'leftImg8bit' / 'val' / 'aachen' / f'{CITY}_leftImg8bit.png'
    picture.parent.mkdir(parents=True)
    cv2.imwrite(str(picture), np.full((*SIZE, 3), 100, np.uint8))
    file = root / 'annotations' / 'instancesonly_filtered_gtFine_val.json'
    file.parent.mkdir()
    classes = DATASETS.get('CityscapesDataset').METAINFO['classes']
    assert len(classes) == cfg.model.num_classes == 8
    file.write_text(
        json.dumps(
            dict(
                images=[
                    dict(
                        id=1,
                        height=SIZE[0],
                        width=SIZE[1],
                        file_name=f'aachen/{picture.name}',
                        segm_file=f'aachen/{CITY}_gtFine_labelIds.png',
                    )
                ],
                categories=[dict(id=24 + i, name=n) for i, n in enumerate(classes)],
                annotations=[annotation(1, 26, mask)],
            )
        )
    )
    settings = dict(cfg.val_dataloader.dataset, data_root=str(root) + '/')
    (sample,) = DATASETS.build(settings)
    truth = sample['data_samples'].gt_instances
    assert [classes[label] for label in truth.labels] == ['car']
    assert sample['inputs'].shape == (3, 1024, 2048)

    coco, city = cfg.val_evaluator
    metric = METRICS.build(dict(coco, ann_file=str(file)))
    metric.dataset_meta = dict(classes=classes)
    metric.process({}, [answer(2, mask)])
    assert metric.evaluate(1)['coco/segm_mAP'] == 1.0

    pytest.importorskip(
        'cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling',
        reason='CityScapesMetric needs cityscapesscripts',
    )
    truth_map = np.zeros(SIZE, np.uint16)
    truth_map[mask > 0] = 26000  # the first car of the picture
    folder = root / 'gtFine' / 'val' / 'aachen'
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / f'{CITY}_gtFine_instanceIds.png'), truth_map)
    metric = METRICS.build(
        dict(
            city,
            seg_prefix=str(root / 'gtFine' / 'val'),
            outfile_prefix=str(tmp_path / 'answers' / 'instance'),
        )
    )
    metric.dataset_meta = dict(classes=classes)
    metric.process({}, [answer(2, mask, img_path=str(picture))])
    found = metric.evaluate(1)
    assert found['cityscapes/mAP'] == pytest.approx(1.0)


@pytest.mark.parametrize('backbone', ['v39', 'r50'])
def test_lvis_config(backbone):
    cfg = leaf('lvis', f'centermask_{backbone}_fpn_ms-2x_lvis-v1')
    assert cfg.model.backbone.type == dict(v39='VoVNet', r50='ResNet')[backbone]
    classes = DATASETS.get('LVISV1Dataset').METAINFO['classes']
    assert len(classes) == cfg.model.num_classes == 1203
    assert cfg.train_dataloader.dataset.oversample_thr == 1e-3
    assert cfg.train_dataloader.dataset.dataset.type == 'LVISV1Dataset'
    # LVIS: 300 answers, whatever their score.
    assert cfg.model.test_cfg.bbox.max_per_img == 300
    assert cfg.model.test_cfg.bbox.score_thr == 1e-4
    assert cfg.train_cfg.max_iters == 180_000


def test_lvis_data_and_metric(tmp_path):
    pytest.importorskip('lvis', reason="LVIS's data set and metric need it")
    cfg = leaf('lvis', 'centermask_v39_fpn_ms-2x_lvis-v1')
    root, mask = tmp_path / 'lvis', square(8, 16, 40)
    picture = root / 'val2017' / '000000000001.jpg'
    picture.parent.mkdir(parents=True)
    cv2.imwrite(str(picture), np.full((*SIZE, 3), 100, np.uint8))
    classes = DATASETS.get('LVISV1Dataset').METAINFO['classes']
    file = root / 'annotations' / 'lvis_v1_val.json'
    file.parent.mkdir()
    file.write_text(json.dumps(lvis_truth(classes, mask)))
    settings = dict(cfg.val_dataloader.dataset, data_root=str(root) + '/')
    (sample,) = DATASETS.build(settings)
    assert sample['data_samples'].gt_instances.labels.tolist() == [4]

    for form in ('bitmap', 'rle'):
        metric = METRICS.build(
            dict(cfg.val_evaluator, ann_file=str(file), metric=['bbox', 'segm'])
        )
        metric.dataset_meta = dict(classes=classes)
        found = answer(4, mask)
        if form == 'rle':
            from mmdet_centermask.models.rle_masks import RLEMasks

            rle = coco_mask.encode(np.asfortranarray(mask))
            found['pred_instances']['masks'] = RLEMasks([rle], SIZE)
        metric.process({}, [found])
        numbers = metric.evaluate(1)
        assert numbers['lvis/segm_AP'] == pytest.approx(1.0)


def lvis_truth(classes: tuple[str, ...], mask: np.ndarray) -> dict:
    image = dict(
        id=1,
        height=SIZE[0],
        width=SIZE[1],
        coco_url='http://images.cocodataset.org/val2017/000000000001.jpg',
        neg_category_ids=[],
        not_exhaustive_category_ids=[],
    )
    categories = [
        dict(id=i, name=name, frequency='f', image_count=100, instance_count=100)
        for i, name in enumerate(classes, 1)
    ]
    return dict(
        images=[image], categories=categories, annotations=[annotation(1, 5, mask)]
    )


def test_every_base_of_data_is_used():
    """A base that no leaf names is a base that nobody tests."""
    text = ''.join(path.read_text() for path in CONFIGS.rglob('*.py'))
    for path in (CONFIGS / '_base_').rglob('*.py'):
        # `--amp` of tools/train.py reads this one; see test_training_options.py.
        assert path.name == 'amp.py' or f'/{path.name}' in text, Path(path).name


def test_numpy_has_the_dropped_names_only_within():
    before = {name: hasattr(np, name) for name in DROPPED}
    with dropped_names():
        assert np.float is float
        assert np.in1d([1, 2], [2, 3]).tolist() == [False, True]
    assert {name: hasattr(np, name) for name in DROPPED} == before
