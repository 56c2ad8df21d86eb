"""The configs in the docs are run as they stand there, on three tiny pictures."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, METRICS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope
from pycocotools import mask as coco_mask
from tiny_centermask import total

CLASSES = ('apple', 'stone', 'pear', 'plum')  # one more than the config names


def python_blocks(path: Path) -> list[str]:
    return re.findall(r'```python\n(.*?)```', path.read_text(), flags=re.DOTALL)


def load(text: str, folder: Path, repository: Path) -> Config:
    """The config of a page, which lies where the user works."""
    text = text.replace("'configs/", f"'{repository}/configs/")
    file = folder / 'fruit.py'
    file.write_text(text)
    return Config.fromfile(file)


@pytest.fixture
def fruit(tmp_path, monkeypatch):
    """data/fruit with a polygon, an RLE mask and a class nobody asked for."""
    init_default_scope('mmdet')
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'data/fruit/images').mkdir(parents=True)
    mask = np.zeros((80, 100), np.uint8, order='F')
    mask[40:75, 50:90] = 1
    rle = coco_mask.encode(mask)
    objects = [
        (1, [10, 5, 40, 50], [[10, 5, 50, 5, 50, 55, 10, 55]]),
        (3, [50, 40, 40, 35], dict(size=[80, 100], counts=rle['counts'].decode())),
        (2, [0, 0, 40, 40], [[0, 0, 40, 0, 40, 40, 0, 40]]),
    ]
    images = [dict(id=i, width=100, height=80, file_name=f'{i}.jpg') for i in (1, 2, 3)]
    annotations = [
        dict(
            id=10 * image['id'] + i,
            image_id=image['id'],
            category_id=category,
            bbox=box,
            area=box[2] * box[3],
            iscrowd=0,
            segmentation=segmentation,
        )
        for image in images
        for i, (category, box, segmentation) in enumerate(objects)
    ]
    truth = dict(
        images=images,
        annotations=annotations,
        categories=[dict(id=i, name=name) for i, name in enumerate(CLASSES, 1)],
    )
    for split in ('train', 'val'):
        (tmp_path / f'data/fruit/{split}.json').write_text(json.dumps(truth))
    for image in images:
        pixels = np.random.default_rng(image['id']).integers(0, 255, (80, 100, 3))
        cv2.imwrite(f'data/fruit/images/{image["file_name"]}', pixels.astype(np.uint8))
    return tmp_path


def test_own_dataset_page(fruit, repository):
    blocks = python_blocks(repository / 'docs' / 'own_dataset.md')
    (start,) = [block for block in blocks if 'data_root' in block]
    (scratch,) = [block for block in blocks if 'init_cfg=None' in block]
    (length,) = [block for block in blocks if 'max_iters' in block]
    assert load(start, fruit, repository).model.num_classes == 3
    # Later lines replace earlier ones, as in the user's file; but of two `_base_`
    # MMEngine reads the first.
    bases, fields = scratch.split('\n\n')
    start = re.sub('^_base_ = .*$', bases, start, flags=re.MULTILINE)
    cfg = load(start + fields + length, fruit, repository)

    train = DATASETS.build(cfg.train_dataloader.dataset)
    assert len(train) == 3
    assert train.metainfo['classes'] == ('apple', 'pear', 'plum')
    model = MODELS.build(cfg.model)
    model.init_weights()
    assert model.bbox_head.conv_reg.bias.tolist() == [1, 1, 1, 1]
    assert {model.bbox_head.num_classes, model.roi_head.mask_head.num_classes} == {3}
    # The recipe's pictures are 600 pixels high; the test has no time for that.
    train.pipeline.transforms[2].scales = [(100, 64)]
    data = model.data_preprocessor(pseudo_collate([train[0], train[1]]), True)
    labels = data['data_samples'][0].gt_instances.labels
    assert sorted(labels.tolist()) == [0, 1]  # apple and pear; the stone is left out
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    loss = total(model.train().loss(**rename_inputs(data)))
    wrapper.update_params(loss)
    assert torch.isfinite(loss)

    assert cfg.train_cfg.max_iters == 9000
    for scheduler in cfg.param_scheduler:
        PARAM_SCHEDULERS.build(dict(scheduler, optimizer=wrapper))
    assert DATASETS.build(cfg.test_dataloader.dataset).test_mode
    assert METRICS.build(cfg.test_evaluator).metrics == ['bbox', 'segm']


def rename_inputs(data: dict) -> dict:
    return dict(batch_inputs=data['inputs'], batch_data_samples=data['data_samples'])


def test_dense_scenes_page(fruit, repository):
    (block,) = python_blocks(repository / 'docs' / 'dense_scenes.md')
    cfg = load(block, fruit, repository)
    assert cfg.model.test_cfg.bbox.max_per_img == 2000
    assert cfg.model.test_cfg.rcnn.mask_format == 'rle'
    assert cfg.model.test_cfg.rcnn.mask_thr_binary == 0.5
    assert cfg.test_evaluator.type == 'DenseCocoMetric'
    assert cfg.test_evaluator.metric == ['bbox', 'segm']
