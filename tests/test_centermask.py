"""The detector as a whole, with MMDetection's own FCOS as the oracle for boxes."""

import json
from copy import deepcopy

import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoMetric
from mmdet.models.detectors import SingleStageDetector
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from tiny_centermask import (
    batch_of,
    ellipse,
    picture,
    talkative,
    tiny_config,
    tiny_model,
    total,
)
from trained_centermask import fit, learner

from mmdet_centermask import models
from mmdet_centermask.models import CenterMask

LOSSES = {'loss_cls', 'loss_bbox', 'loss_centerness', 'loss_mask', 'loss_mask_iou'}
TWO_OBJECTS = ((8, 8, 40, 48), (34, 20, 60, 60))


@pytest.fixture(scope='module')
def shared() -> CenterMask:
    """One model with something to say; a test that changes it takes a copy."""
    return talkative(tiny_model())


@pytest.fixture
def model(shared) -> CenterMask:
    return deepcopy(shared)


def silent(model: CenterMask) -> CenterMask:
    """No location reaches the score threshold."""
    model.bbox_head.conv_cls.weight.data.zero_()
    model.bbox_head.conv_cls.bias.data.fill_(-20)
    return model


def stock_fcos(model: CenterMask) -> SingleStageDetector:
    """MMDetection's FCOS with the weights of ``model`` and its test settings."""
    cfg = tiny_config()
    detector = MODELS.build(
        dict(
            type='FCOS',
            backbone=cfg.backbone,
            neck=cfg.neck,
            bbox_head=dict(cfg.bbox_head, num_classes=3),
            test_cfg=cfg.test_cfg.bbox,
            data_preprocessor=cfg.data_preprocessor,
        )
    )
    boxes_only = {
        k: v for k, v in model.state_dict().items() if not k.startswith('roi_head')
    }
    detector.load_state_dict(boxes_only)
    return detector


def test_is_a_single_stage_detector_registered_in_mmdet():
    """Trap 7: `DetInferencer` looks in mmdet's registry, under its scope."""
    for name in models.__all__:
        assert MODELS.get(name) is getattr(models, name)
        assert MODELS.get(f'mmdet.{name}') is getattr(models, name)
    # Trap 1: TwoStageDetector would train on one class and label every box 0.
    assert issubclass(CenterMask, SingleStageDetector)


def test_box_losses_are_those_of_stock_fcos(model):
    stock = stock_fcos(model)
    pictures = [picture(boxes=TWO_OBJECTS, labels=[2, 1]), picture(seed=1)]
    model.train(), stock.train()
    losses = model(*batch_of(model, *pictures, training=True), mode='loss')
    expected = stock(*batch_of(stock, *pictures, training=True), mode='loss')
    assert set(losses) == LOSSES
    assert set(expected) == {'loss_cls', 'loss_bbox', 'loss_centerness'}
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value.item(), rel=1e-5), name
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())


def test_boxes_are_those_of_stock_fcos_clipped(model):
    """Labels of every class survive (trap 1), the score is the root (trap 4)."""
    model.eval()
    stock = stock_fcos(model).eval()
    pictures = [picture(60, 64, scale_factor=(2.0, 1.5)), picture(seed=1)]
    with torch.no_grad():
        found = model(*batch_of(model, *pictures), mode='predict')
        expected = stock(*batch_of(stock, *pictures), mode='predict')
    for ours, theirs in zip(found, expected, strict=True):
        height, width = ours.ori_shape
        boxes = theirs.pred_instances.bboxes.clone()
        boxes[:, 0::2] = boxes[:, 0::2].clamp(0, width)
        boxes[:, 1::2] = boxes[:, 1::2].clamp(0, height)
        kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        ours = ours.pred_instances
        assert torch.allclose(ours.bboxes, boxes[kept], atol=1e-3)
        assert torch.equal(ours.labels, theirs.pred_instances.labels[kept])
        assert torch.allclose(ours.scores, theirs.pred_instances.scores[kept].sqrt())
        assert len(ours) > 20 and set(ours.labels.tolist()) == {0, 1, 2}
        # Some boxes did reach out of the picture (trap 3).
        assert (boxes != theirs.pred_instances.bboxes).any()


def test_prediction_is_complete(model):
    with torch.no_grad():
        (sample,) = model.eval()(
            *batch_of(model, picture(60, 64, scale_factor=(2.0, 1.5))), mode='predict'
        )
    found = sample.pred_instances
    assert isinstance(sample, DetDataSample)
    assert set(found.keys()) == {'bboxes', 'scores', 'labels', 'masks', 'mask_scores'}
    assert found.masks.shape == (len(found), 40, 32)
    assert found.masks.dtype == torch.bool
    assert len(found) <= 50
    # The IoU head is untrained, so the two rankings have nothing in common.
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    assert found.mask_scores.shape == found.scores.shape
    assert not torch.allclose(found.mask_scores, found.scores)


def test_prediction_without_rescaling(model):
    pictures = [picture(60, 64, scale_factor=(2.0, 1.5))]
    with torch.no_grad():
        big, small = [
            model.eval()
            .predict(*batch_of(model, *pictures), rescale=r)[0]
            .pred_instances
            for r in (False, True)
        ]
    assert big.masks.shape[1:] == (60, 64) and small.masks.shape[1:] == (40, 32)
    scale = torch.tensor([2.0, 1.5, 2.0, 1.5])
    assert torch.allclose(big.bboxes, small.bboxes * scale, atol=1e-4)
    assert torch.equal(big.scores, small.scores)


def same_instances(alone, together):
    assert torch.equal(alone.labels, together.labels)
    assert torch.allclose(alone.bboxes, together.bboxes, atol=1e-3)
    assert torch.allclose(alone.scores, together.scores, atol=1e-5)
    assert torch.allclose(alone.mask_scores, together.mask_scores, atol=1e-5)
    # The order of additions differs between batch sizes; pixels at the edge of a
    # random mask may follow.
    assert (alone.masks != together.masks).float().mean() < 1e-3
    assert alone.masks.any()


def test_batch_equals_singles(model):
    model.eval()
    pictures = [picture(seed=i, boxes=TWO_OBJECTS[: i % 3]) for i in range(3)]
    with torch.no_grad():
        together = model(*batch_of(model, *pictures), mode='predict')
        for one, sample in zip(pictures, together, strict=True):
            (alone,) = model(*batch_of(model, one), mode='predict')
            same_instances(alone.pred_instances, sample.pred_instances)


def spy_levels(model: CenterMask) -> list:
    """(rois, levels) of every call of the extractor from now on."""
    extractor, seen = model.roi_head.mask_roi_extractor, []
    rule = extractor.roi_levels

    def spied(feats, rois, image_areas):
        levels = rule(feats, rois, image_areas)
        seen.append((rois, levels))
        return levels

    extractor.roi_levels = spied
    return seen


@pytest.mark.parametrize('training', [False, True])
def test_padding_does_not_change_the_level_of_a_box(model, training):
    """Trap 6: equation 2 by hand with each picture's own size, in one batch."""
    sizes = [(64, 64), (128, 96), (40, 120)]
    pictures = [
        picture(*size, boxes=[(8, 8, 40, 36), (2, 2, 60, 38)], seed=i)
        for i, size in enumerate(sizes)
    ]
    seen = spy_levels(model)
    model.train(training)
    inputs, samples = batch_of(model, *pictures, training=training)
    assert inputs.shape[-2:] == (128, 128)
    with torch.no_grad():
        model(inputs, samples, mode='loss' if training else 'predict')
    ((rois, levels),) = seen
    own = torch.tensor([float(h * w) for h, w in sizes])[rois[:, 0].long()]
    ratio = (rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2]) / own
    assert torch.equal(levels, 3 + (ratio > 0.25).long() + (ratio > 0.5).long())
    assert set(rois[:, 0].tolist()) == {0.0, 1.0, 2.0}
    padded = ratio * own / 128**2
    wrong = 3 + (padded > 0.25).long() + (padded > 0.5).long()
    assert (levels != wrong).any()


def test_box_keeps_its_level_when_a_larger_picture_joins_the_batch(model):
    one, larger = picture(boxes=[(4, 4, 60, 60)]), picture(128, 128, seed=1)
    levels = []
    for pictures in ([one], [one, larger]):
        copy = deepcopy(model)
        seen = spy_levels(copy)
        # Only ground truth is sampled: the same box alone and in company.
        silent(copy).train()
        with torch.no_grad():
            copy(*batch_of(copy, *pictures, training=True), mode='loss')
        levels.append(seen[0][1][0].item())
    assert levels == [5, 5]


@pytest.mark.parametrize('boxes', [TWO_OBJECTS, ()])
def test_backward_reaches_every_parameter(model, boxes):
    """Also of a picture without objects, or a distributed run would hang."""
    model.train()
    losses = model(*batch_of(model, picture(boxes=boxes), training=True), mode='loss')
    assert set(losses) == LOSSES
    total(losses).backward()
    for name, parameter in model.named_parameters():
        # Norm weights of the backbone are frozen in the recipe.
        frozen = name.startswith('backbone') and '.bn.' in name
        assert parameter.requires_grad != frozen, name
        if not frozen:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_picture_without_objects(model):
    model.train()
    losses = model(*batch_of(model, picture(boxes=()), training=True), mode='loss')
    assert losses['loss_mask'].item() == 0
    assert losses['loss_mask_iou'].item() == 0
    assert losses['loss_bbox'].item() == 0 and losses['loss_centerness'].item() == 0
    assert losses['loss_cls'].item() > 0
    total(losses).backward()
    assert not any(p.grad.any() for p in model.roi_head.parameters())
    assert model.bbox_head.conv_cls.weight.grad.any()


def test_batch_with_and_without_objects(model):
    model.train()
    pictures = [picture(boxes=()), picture(boxes=TWO_OBJECTS, seed=1)]
    losses = model(*batch_of(model, *pictures, training=True), mode='loss')
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())


def test_proposals_of_training_have_the_size_of_objects(model):
    """Trap 2, through the model: 8 to 128 times too small without the rescale."""
    seen = []
    predict = model.roi_head.loss

    def spied(x, proposals, samples):
        seen.extend(proposals)
        return predict(x, proposals, samples)

    model.roi_head.loss = spied
    inputs, samples = batch_of(model, picture(boxes=TWO_OBJECTS), training=True)
    with torch.no_grad():
        model.train()(inputs, samples, mode='loss')
        expected = model.eval()(inputs, samples, mode='predict')
    (training,) = seen
    boxes = training.bboxes[:20].clone()
    boxes = boxes.clamp(0, 64)
    boxes = boxes[((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)]
    testing = expected[0].pred_instances.bboxes
    assert torch.allclose(boxes, testing[: len(boxes)], atol=1e-3)


def coco_file(path, *images) -> str:
    """Ground truth of (id, height, width), without objects but one in the first."""
    annotation = dict(
        id=1,
        image_id=images[0][0],
        category_id=1,
        bbox=[4, 4, 20, 20],
        area=400,
        iscrowd=0,
        segmentation=[[4, 4, 24, 4, 24, 24, 4, 24]],
    )
    content = dict(
        info={},
        images=[dict(id=i, height=h, width=w, file_name='') for i, h, w in images],
        annotations=[annotation],
        categories=[dict(id=k + 1, name=f'class {k}') for k in range(3)],
    )
    path.write_text(json.dumps(content))
    return str(path)


def metric_of(ann_file: str, samples: list) -> dict:
    metric = CocoMetric(ann_file, metric=['bbox', 'segm'])
    metric.dataset_meta = dict(classes=tuple(f'class {k}' for k in range(3)))
    metric.process({}, [sample.to_dict() for sample in samples])
    return metric.evaluate(size=len(samples))


def test_nothing_detected_down_to_metric_and_picture(model, tmp_path):
    silent(model).eval()
    pictures = [picture(60, 64, scale_factor=(2.0, 1.5)), picture(48, 56, seed=1)]
    with torch.no_grad():
        samples = model(*batch_of(model, *pictures), mode='predict')
    for sample, shape in zip(samples, [(40, 32), (48, 56)], strict=True):
        found = sample.pred_instances
        assert found.masks.shape == (0, *shape) and found.masks.dtype == torch.bool
        assert found.mask_scores.shape == found.scores.shape == (0,)
        assert found.bboxes.shape == (0, 4)
    ann_file = coco_file(tmp_path / 'gt.json', (0, 40, 32), (1, 48, 56))
    # mmdet's metric has no number to give; it must not fall over.
    assert metric_of(ann_file, samples) == {}
    visualizer = DetLocalVisualizer()
    visualizer.dataset_meta = dict(classes=('a', 'b', 'c'), palette=[(9, 9, 9)] * 3)
    out_file = tmp_path / 'out.png'
    visualizer.add_datasample(
        'x', np.zeros((48, 56, 3), np.uint8), samples[1], out_file=str(out_file)
    )
    assert out_file.stat().st_size > 0


def test_something_detected_in_one_of_two_pictures(model, tmp_path):
    with torch.no_grad():
        (found,) = model.eval()(*batch_of(model, picture()), mode='predict')
        (nothing,) = silent(model)(*batch_of(model, picture(seed=1)), mode='predict')
    ann_file = coco_file(tmp_path / 'gt.json', (0, 64, 64), (1, 64, 64))
    results = metric_of(ann_file, [found, nothing])
    assert 0 <= results['coco/segm_mAP'] <= 1
    visualizer = DetLocalVisualizer()
    visualizer.dataset_meta = dict(classes=('a', 'b', 'c'), palette=[(9, 9, 250)] * 3)
    black = np.zeros((64, 64, 3), np.uint8)
    visualizer.add_datasample('x', black, found, pred_score_thr=0.0)
    assert visualizer.get_image().any()


def test_raw_outputs(model):
    model.eval()
    inputs, samples = batch_of(model, picture(), picture(seed=1))
    with torch.no_grad():
        outputs = model(inputs, samples, mode='tensor')
        alone = model(inputs)
    cls_scores, bbox_preds, centernesses, logits, ious = outputs
    assert [tuple(m.shape) for m in cls_scores] == [
        (2, 3, n, n) for n in (8, 4, 2, 1, 1)
    ]
    assert [m.shape[1] for m in bbox_preds] == [4] * 5
    assert [m.shape[1] for m in centernesses] == [1] * 5
    assert logits.shape[1:] == (3, 28, 28) and ious.shape == (len(logits), 3)
    assert len(logits) > 20
    # Counters of FLOPs hand over no samples; the padded size is the same here.
    assert torch.allclose(alone[3], logits, atol=1e-5)


def test_one_number_of_classes_reaches_every_head():
    model = MODELS.build(tiny_config(7))
    assert model.bbox_head.num_classes == 7
    assert model.bbox_head.conv_cls.out_channels == 7
    assert model.roi_head.mask_head.num_classes == 7
    assert model.roi_head.mask_head.conv_logits.out_channels == 7
    assert model.roi_head.mask_iou_head.num_classes == 7
    assert model.roi_head.mask_iou_head.fc_mask_iou.out_features == 7


def test_heads_may_count_for_themselves():
    heads = ('bbox_head', 'roi_head__mask_head', 'roi_head__mask_iou_head')
    options = {f'{head}__num_classes': 2 for head in heads}
    assert MODELS.build(tiny_config(None, **options)).bbox_head.num_classes == 2
    assert MODELS.build(tiny_config(2, **options)).bbox_head.num_classes == 2


@pytest.mark.parametrize(
    'options, message',
    [
        # Class counts that disagree, one head at a time and all together.
        (
            dict(bbox_head__num_classes=4),
            'num_classes=3 but bbox_head.num_classes=4',
        ),
        (
            dict(roi_head__mask_head__num_classes=4),
            'num_classes=3 but roi_head.mask_head.num_classes=4',
        ),
        (
            dict(roi_head__mask_iou_head__num_classes=4),
            'num_classes=3 but roi_head.mask_iou_head.num_classes=4',
        ),
        (
            dict(
                num_classes=None,
                bbox_head__num_classes=4,
                roi_head__mask_head__num_classes=3,
                roi_head__mask_iou_head__num_classes=3,
            ),
            'bbox_head.num_classes=4 but roi_head.mask_head.num_classes=3',
        ),
        # A neck that does not fit.
        (
            dict(neck__in_channels=[512, 768, 1024]),
            'neck.in_channels=[512, 768, 1024] but the backbone gives [256, 384, 512]',
        ),
        (
            dict(backbone__out_indices=(0, 1, 2, 3)),
            'neck.in_channels=[256, 384, 512] but the backbone gives '
            '[112, 256, 384, 512]',
        ),
        (
            dict(neck__num_outs=4),
            'neck.num_outs=4 but bbox_head.strides=[8, 16, 32, 64, 128]',
        ),
        (
            # Every channel fits, and every box would be twice too large.
            dict(backbone__out_indices=(0, 1, 2), neck__in_channels=[112, 256, 384]),
            'bbox_head.strides=[8, 16, 32, 64, 128] but backbone.out_indices=(0, 1, 2) '
            'and neck.num_outs=5 start at stride 4',
        ),
        (
            dict(bbox_head__strides=[8, 16, 32, [64], 128]),
            'bbox_head.strides=[8, 16, 32, [64], 128] must be whole numbers',
        ),
        # Lite and full mixed up: 128 channels and 256.
        (
            dict(neck__out_channels=64),
            'bbox_head.in_channels=32 but neck.out_channels=64',
        ),
        (
            dict(bbox_head__in_channels=64),
            'bbox_head.in_channels=64 but neck.out_channels=32',
        ),
        (
            dict(roi_head__mask_roi_extractor__out_channels=64),
            'roi_head.mask_roi_extractor.out_channels=64 but neck.out_channels=32',
        ),
        (
            dict(roi_head__mask_head__in_channels=64),
            'roi_head.mask_head.in_channels=64 but neck.out_channels=32',
        ),
        (
            dict(roi_head__mask_iou_head__in_channels=64),
            'roi_head.mask_iou_head.in_channels=64 but neck.out_channels=32',
        ),
        # Boxes of FCOS are read from the same levels.
        (
            dict(roi_head__mask_roi_extractor__featmap_strides=[4, 8, 16]),
            'roi_head.mask_roi_extractor.featmap_strides=[4, 8, 16] but '
            'bbox_head.strides=[8, 16, 32, 64, 128]',
        ),
    ],
)
def test_parts_that_do_not_fit(options, message):
    with pytest.raises(ValueError) as error:
        MODELS.build(tiny_config(**{'num_classes': 3, **options}))
    assert message in str(error.value)
    assert str(error.value).strip().count('\n') == 0


@pytest.mark.parametrize('name, mode', [('train_cfg', 'loss'), ('test_cfg', 'predict')])
def test_without_a_cfg_one_half_works(name, mode):
    model = tiny_model(**{name: None})
    inputs, samples = batch_of(model, picture(), training=True)
    with pytest.raises(ValueError, match=f'CenterMask: {name}=None, .* needs one'):
        model.train(mode == 'loss')(inputs, samples, mode=mode)
    other = {'loss': 'predict', 'predict': 'loss'}[mode]
    assert model.train(other == 'loss')(inputs, samples, mode=other)


def test_mask_scoring_can_be_left_out():
    model = talkative(tiny_model(roi_head__mask_iou_head=None))
    losses = model.train()(*batch_of(model, picture(), training=True), mode='loss')
    assert set(losses) == LOSSES - {'loss_mask_iou'}
    with torch.no_grad():
        (sample,) = model.eval()(*batch_of(model, picture()), mode='predict')
    assert len(sample.pred_instances) and 'mask_scores' not in sample.pred_instances


def test_a_pyramid_that_starts_at_stride_4():
    model = MODELS.build(
        tiny_config(
            backbone__out_indices=(0, 1, 2, 3),
            neck__in_channels=[112, 256, 384, 512],
            bbox_head__strides=[4, 8, 16, 32, 64],
            roi_head__mask_roi_extractor__featmap_strides=[4, 8, 16],
        )
    )
    x = model.extract_feat(torch.rand(1, 3, 64, 64))
    assert [m.shape[-1] for m in x] == [16, 8, 4, 2, 1]


def test_other_backbones():
    """Any MMDetection backbone; only ours says in advance what it gives."""
    model = MODELS.build(
        tiny_config(
            backbone=dict(
                _delete_=True,
                type='ResNet',
                depth=18,
                base_channels=8,
                out_indices=(1, 2, 3),
            ),
            neck__in_channels=[16, 32, 64],
        )
    )
    losses = model.train()(*batch_of(model, picture(), training=True), mode='loss')
    assert set(losses) == LOSSES and total(losses).isfinite()


@pytest.mark.slow
def test_overfits_one_picture():
    """The whole chain learns: losses fall, masks are right, IoUs are known."""
    model = learner()
    boxes, labels = [(6, 8, 44, 50), (52, 40, 90, 88)], [2, 0]
    one = picture(96, 96, boxes=boxes, labels=labels)
    history = fit(model, [batch_of(model, one, training=True)], steps=150)
    assert np.mean(history[-5:]) < 0.35 * history[0]
    with torch.no_grad():
        (sample,) = model(*batch_of(model, one), mode='predict')
    found = sample.pred_instances
    for box, label in zip(boxes, labels, strict=True):
        truth = torch.from_numpy(ellipse(96, 96, box))
        of_class = found[found.labels == label]
        best = of_class[int(of_class.mask_scores.argmax())]
        mask = best.masks[0]
        iou = ((mask & truth).sum() / (mask | truth).sum()).item()
        assert iou > 0.8
        assert best.scores.item() > 0.5
        # The predicted mask IoU is near the real one; an untrained head says 0.
        assert (best.mask_scores / best.scores).item() == pytest.approx(iou, abs=0.3)
