"""Dense scenes: RLE masks, chunks, and an AP that counts more than a hundred."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer
from mmdet.evaluation import CocoMetric, DumpDetResults
from mmdet.structures import DetDataSample
from mmdet.structures.mask import encode_mask_results
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config, ConfigDict
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tiny_centermask import CONFIGS, batch_of, picture, talkative, tiny_model

from mmdet_centermask.evaluation import DenseCocoMetric
from mmdet_centermask.models.rle_masks import RLEMask, RLEMasks


def encoded(mask: np.ndarray) -> dict:
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


# The option.
@pytest.fixture(scope='module')
def both():
    """The same prediction with dense and with RLE masks, the latter in chunks."""
    model = talkative(tiny_model()).eval()
    shown = [picture(96, 128, scale_factor=(0.8, 0.75)), picture(64, 64, seed=1)]
    options = Config.fromfile(CONFIGS / '_base_' / 'dense.py').dense_test_cfg
    results = []
    for cfg in (dict(), dict(options.rcnn, mask_chunk=7)):
        model.roi_head.test_cfg = ConfigDict(model.test_cfg.rcnn, **cfg)
        with torch.no_grad():
            results.append(model.predict(*batch_of(model, *shown)))
    return results


def test_rle_and_chunks_change_nothing_but_the_form(both):
    for dense, rle in zip(*both, strict=True):
        dense, rle = dense.pred_instances, rle.pred_instances
        assert isinstance(rle.masks, RLEMasks)
        assert rle.masks.shape == tuple(dense.masks.shape)
        assert len(dense) > 7
        for key in ('bboxes', 'scores', 'labels', 'mask_scores'):
            torch.testing.assert_close(rle[key], dense[key], rtol=1e-4, atol=1e-6)
        differing = (rle.masks.to_ndarray() != dense.masks.numpy()).mean()
        assert differing < 1e-3  # a batch of 7 is summed in another order


def test_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match="mask_format='polygon'"):
        tiny_model(test_cfg__rcnn__mask_format='polygon')


def test_dense_nuclei_config_and_livecell_have_the_numbers():
    """Caps and pixels as LIVECell's own models state them."""
    for name in (
        'centermask-lite_v19-slim_fpn_nuclei_dense',
        'centermask_v99_fpn_livecell',
    ):
        cfg = Config.fromfile(CONFIGS / 'dense' / f'{name}.py')
        assert cfg.model.num_classes == 1
        assert cfg.model.test_cfg.bbox.nms_pre == 4000
        assert cfg.model.test_cfg.bbox.max_per_img == 2000
        assert cfg.model.test_cfg.rcnn.mask_format == 'rle'
        assert cfg.test_evaluator.type == 'DenseCocoMetric'
        assert cfg.test_evaluator.max_dets == 2000
        assert cfg.test_evaluator.ann_file
    assert cfg.model.backbone.arch == 'V-99'
    assert cfg.model.train_cfg.proposal.max_per_img == 3000
    assert cfg.model.train_cfg.rcnn.sampler.num == 3000
    assert cfg.model.data_preprocessor.mean == [128.0] * 3
    assert cfg.model.data_preprocessor.std == [11.578] * 3
    assert cfg.train_cfg.max_iters == 100_000


# RLE where mmdet expects a tensor.
def squares(*corners, size=(20, 30)):
    masks = np.zeros((len(corners), *size), bool)
    for mask, (row, column) in zip(masks, corners, strict=True):
        mask[row : row + 4, column : column + 4] = True
    return masks


def instances(masks, as_rle=True):
    """Predictions with these masks and their boxes, scores falling from 0.9."""
    boxes = [
        [np.nonzero(m)[1].min(), np.nonzero(m)[0].min()]
        + [np.nonzero(m)[1].max() + 1, np.nonzero(m)[0].max() + 1]
        for m in masks
    ]
    form = torch.from_numpy(masks)
    if as_rle:
        form = RLEMasks([encoded(mask) for mask in masks], masks.shape[1:])
    return InstanceData(
        bboxes=torch.tensor(np.array(boxes).reshape(-1, 4), dtype=torch.float32),
        scores=torch.linspace(0.9, 0.1, len(masks)),
        labels=torch.zeros(len(masks), dtype=torch.long),
        masks=form,
    )


def test_rle_masks_are_indexed_like_a_tensor():
    masks = squares((0, 0), (5, 5), (10, 20))
    found = instances(masks)
    for item in (
        torch.tensor([True, False, True]),
        torch.tensor([2, 0]),
        np.array([1]),
        slice(1, None),
        torch.tensor([False, False, False]),
    ):
        kept = found[item].masks
        assert isinstance(kept, RLEMasks)
        assert (kept.to_ndarray() == masks[item]).all()
        assert kept.shape == masks[item].shape
    assert isinstance(found.masks[1], RLEMask)
    joined = InstanceData.cat([found[:1], found[1:]])
    assert (joined.masks.to_ndarray() == masks).all()
    moved = found.to('cpu').detach().numpy()
    assert (moved.masks.astype(bool) == masks).all()
    assert (moved.masks.to_tensor(torch.bool, 'cpu').numpy() == masks).all()
    assert (pickle.loads(pickle.dumps(found.masks)).to_ndarray() == masks).all()
    assert json.loads(json.dumps({**found.masks[0], 'counts': ''}))['size'] == [20, 30]


def test_encode_mask_results_takes_rle():
    """How LVISMetric, DumpDetResults and DetInferencer read masks."""
    masks = squares((0, 0), (5, 5))
    form = instances(masks).masks
    assert encode_mask_results(form.detach().cpu().numpy()) == encode_mask_results(
        masks
    )


def test_the_inferencer_writes_rle():
    masks = squares((0, 0), (5, 5))
    answers = []
    for as_rle in (True, False):
        sample = DetDataSample(pred_instances=instances(masks, as_rle))
        answers.append(DetInferencer.pred2dict(SimpleNamespace(), sample))
    assert answers[0] == answers[1]
    assert len(answers[0]['masks']) == 2


def test_the_visualizer_draws_the_same():
    masks = squares((0, 0), (5, 5), (10, 20))
    image = np.full((20, 30, 3), 90, np.uint8)
    drawn = []
    for as_rle in (True, False):
        visualizer = DetLocalVisualizer()
        visualizer.dataset_meta = dict(classes=('cell',), palette=[(220, 20, 60)])
        np.random.seed(0)  # mmdet jitters the colours
        sample = DetDataSample(pred_instances=instances(masks, as_rle))
        visualizer.add_datasample('dense', image.copy(), sample, pred_score_thr=0.3)
        drawn.append(visualizer.get_image())
    assert (drawn[0] != 90).any()
    assert (drawn[0] == drawn[1]).all()


def test_dumped_results_are_plain():
    masks = squares((0, 0), (5, 5))
    metric = DumpDetResults(out_file_path='unused.pkl')
    metric.process({}, [dict(pred_instances=instances(masks).to_dict())])
    (result,) = metric.results
    assert [type(mask) for mask in result['pred_instances']['masks']] == [dict, dict]


# The metric.
def grid(number, step=8, side=4, width=25):
    """Corners of squares that do not touch."""
    return [(i // width * step, i % width * step) for i in range(number)], side


def truth_file(path, corners, side, size=(200, 200)):
    data = dict(
        images=[dict(id=1, width=size[1], height=size[0], file_name='')],
        categories=[dict(id=1, name='cell')],
        annotations=[
            dict(
                id=i,
                image_id=1,
                category_id=1,
                iscrowd=0,
                area=side * side,
                bbox=[column, row, side, side],
                segmentation=json_rle(row, column, side, size),
            )
            for i, (row, column) in enumerate(corners, 1)
        ],
    )
    path.write_text(json.dumps(data))
    return str(path)


def json_rle(row, column, side, size):
    mask = np.zeros(size, bool)
    mask[row : row + side, column : column + side] = True
    rle = encoded(mask)
    return dict(size=rle['size'], counts=rle['counts'].decode())


def prediction(corners, side, size=(200, 200), scores=None):
    masks = [json_rle(row, column, side, size) for row, column in corners]
    boxes = [[c, r, c + side, r + side] for r, c in corners]
    if scores is None:
        scores = np.linspace(0.99, 0.1, len(corners))
    return dict(
        img_id=1,
        ori_shape=size,
        pred_instances=dict(
            bboxes=torch.tensor(boxes, dtype=torch.float32),
            scores=torch.tensor(scores, dtype=torch.float32),
            labels=torch.zeros(len(corners), dtype=torch.long),
            masks=RLEMasks(masks, size),
        ),
    )


def evaluate(metric, *predictions):
    metric.dataset_meta = dict(classes=('cell',))
    metric.process({}, deepcopy(list(predictions)))
    return metric.evaluate(size=len(predictions))


def test_a_perfect_answer_with_150_objects(tmp_path):
    """By hand: 100 of 150 found is recall 0.667, 67 of COCO's 101 recall levels."""
    corners, side = grid(150)
    file = truth_file(tmp_path / 'truth.json', corners, side)
    perfect = prediction(corners, side)
    options = dict(ann_file=file, metric=['bbox', 'segm'])

    stock = evaluate(CocoMetric(**options), perfect)
    assert stock['coco/segm_mAP'] == pytest.approx(67 / 101, abs=1e-3)
    assert stock['coco/segm_mAP_50'] == 1.0  # the trap: another maxDets than the AP

    dense = evaluate(DenseCocoMetric(**options, max_dets=2000), perfect)
    for kind in ('bbox', 'segm'):
        for name in ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'AR'):
            assert dense[f'coco/{kind}_{name}'] == 1.0
        assert dense[f'coco/{kind}_mAP_m'] == -1  # nothing of that size

    capped = evaluate(DenseCocoMetric(**options, max_dets=100), perfect)
    for name in ('mAP', 'mAP_50', 'mAP_75', 'mAP_s'):
        assert capped[f'coco/segm_{name}'] == pytest.approx(67 / 101, abs=1e-3)
    assert capped['coco/segm_AR'] == pytest.approx(100 / 150, abs=1e-3)


def test_the_same_as_pycocotools_accumulate(tmp_path):
    """Shifted and missing squares and false ones, sizes split at LIVECell's scale."""
    rng = np.random.default_rng(0)
    small, _ = grid(120)
    large = [(150 + i // 8 * 24, i % 8 * 24) for i in range(16)]
    file = tmp_path / 'truth.json'
    data = json.loads(Path(truth_file(file, small, 4)).read_text())
    more = truth_file(tmp_path / 'more.json', large, 20)
    more = json.loads(Path(more).read_text())
    for annotation in more['annotations']:
        annotation['id'] += 1000
    data['annotations'] += more['annotations']
    file.write_text(json.dumps(data))
    boxes = [(r + rng.integers(0, 3), c + rng.integers(0, 3), 4) for r, c in small[20:]]
    boxes += [(r + rng.integers(0, 4), c + rng.integers(0, 4), 20) for r, c in large]
    boxes += [(int(r), int(c), 4) for r, c in rng.integers(0, 190, (40, 2))]
    scores = rng.permutation(len(boxes)) / len(boxes)
    size = (220, 220)
    sample = dict(
        img_id=1,
        ori_shape=size,
        pred_instances=dict(
            bboxes=torch.tensor([[c, r, c + s, r + s] for r, c, s in boxes]).float(),
            scores=torch.tensor(scores).float(),
            labels=torch.zeros(len(boxes), dtype=torch.long),
        ),
    )
    metric = DenseCocoMetric(
        ann_file=str(file), metric='bbox', max_dets=130, area_edges=(100, 300)
    )
    found = evaluate(metric, sample)

    truth = COCO(str(file))
    answers = [
        dict(image_id=1, category_id=1, bbox=[int(c), int(r), s, s], score=float(score))
        for (r, c, s), score in zip(boxes, np.float32(scores), strict=True)
    ]
    oracle = COCOeval(truth, truth.loadRes(answers), 'bbox')
    oracle.params.maxDets = [1, 10, 130]
    oracle.params.areaRng = [[0, 1e10], [0, 100], [100, 300], [300, 1e10]]
    oracle.evaluate()
    oracle.accumulate()
    tables = oracle.eval['precision'][..., 2]
    expected = dict(
        mAP=tables[:, :, 0, 0],
        mAP_50=tables[0, :, 0, 0],
        mAP_75=tables[5, :, 0, 0],
        mAP_s=tables[:, :, 0, 1],
        mAP_l=tables[:, :, 0, 3],
    )
    for name, table in expected.items():
        assert 0 < table.mean() < 1
        assert found[f'coco/bbox_{name}'] == pytest.approx(table.mean(), abs=6e-4)
    assert found['coco/bbox_mAP_m'] == -1
    recall = oracle.eval['recall'][:, 0, 0, 2].mean()
    assert found['coco/bbox_AR'] == pytest.approx(recall, abs=6e-4)


def test_classwise_and_empty_and_refused(tmp_path):
    corners, side = grid(3)
    file = truth_file(tmp_path / 'truth.json', corners, side)
    found = evaluate(
        DenseCocoMetric(ann_file=file, metric='segm', classwise=True),
        prediction(corners, side),
    )
    assert found['coco/segm_cell_precision'] == 1.0
    nothing = prediction([], side)
    nothing['pred_instances']['bboxes'] = torch.zeros(0, 4)
    assert evaluate(DenseCocoMetric(ann_file=file, metric='segm'), nothing) == {}
    with pytest.raises(ValueError, match='proposal'):
        DenseCocoMetric(ann_file=file, metric=['bbox', 'proposal'])
    with pytest.raises(ValueError, match='max_dets=0'):
        DenseCocoMetric(ann_file=file, max_dets=0)


# Memory.
@pytest.mark.slow
def test_2000_instances_in_a_large_picture_stay_below_2_gb(repository):
    """The dense nuclei config; as a bool tensor the masks alone would be 2000 MB."""
    done = subprocess.run(
        [sys.executable, 'tests/dense_memory.py']
        + ['configs/dense/centermask-lite_v19-slim_fpn_nuclei_dense.py'],
        cwd=repository,
        env={**os.environ, 'PYTHONPATH': str(repository)},
        capture_output=True,
        text=True,
        check=True,
    )
    megabytes = int(re.search(r'(\d+) MB above the model', done.stdout).group(1))
    assert 50 < megabytes < 2000
