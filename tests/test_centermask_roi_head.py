"""The mask branch: who is sampled, what it learns, and how it scores masks.

Output layers are set to constants where a number is worked out by hand.
"""

import json
import math

import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoMetric
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from tiny_centermask import CHANNELS, tiny_config
from torch import Tensor

from mmdet_centermask.models import CenterMaskRoIHead
from mmdet_centermask.models.mask_paste import paste_dense
from mmdet_centermask.models.mask_results import PASTE


def roi_head(num_classes: int = 3, seed: int = 0, **options) -> CenterMaskRoIHead:
    """The mask branch of the tiny model, alone."""
    init_default_scope('mmdet')
    cfg = tiny_config(num_classes, **options)
    for name in ('mask_head', 'mask_iou_head'):
        if cfg.roi_head[name] is not None:
            cfg.roi_head[name].setdefault('num_classes', num_classes)
    cfg.roi_head.update(train_cfg=cfg.train_cfg.rcnn, test_cfg=cfg.test_cfg.rcnn)
    torch.manual_seed(seed)
    return MODELS.build(cfg.roi_head)


def say(head: CenterMaskRoIHead, logits: list, ious: list) -> CenterMaskRoIHead:
    """Make every mask pixel and every mask IoU a constant for each class."""
    for layer, values in (
        (head.mask_head.conv_logits, logits),
        (head.mask_iou_head.fc_mask_iou, ious),
    ):
        layer.weight.data.zero_()
        layer.bias.data = torch.tensor(values).float()
    return head


def maps(batch: int = 1, height: int = 64, width: int = 64, seed: int = 0) -> tuple:
    torch.manual_seed(seed)
    return tuple(
        torch.randn(batch, CHANNELS, height // s, width // s, requires_grad=True)
        for s in (8, 16, 32, 64, 64)
    )


def detections(boxes: list, labels: list, scores: list | None = None) -> InstanceData:
    return InstanceData(
        bboxes=torch.tensor(boxes).float().reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.long),
        scores=torch.tensor(scores if scores else [0.5] * len(boxes)).float(),
    )


def sample(size=(64, 64), scale_factor=(1.0, 1.0), objects=()) -> DetDataSample:
    """Ground truth of rectangles: (box, label, rectangle of the mask)."""
    height, width = size
    ori_shape = (round(height / scale_factor[1]), round(width / scale_factor[0]))
    result = DetDataSample(
        metainfo=dict(
            img_id=1, img_shape=size, ori_shape=ori_shape, scale_factor=scale_factor
        )
    )
    masks = np.zeros((len(objects), height, width), np.uint8)
    for mask, (_, _, (x1, y1, x2, y2)) in zip(masks, objects, strict=True):
        mask[y1:y2, x1:x2] = 1
    result.gt_instances = InstanceData(
        bboxes=torch.tensor([o[0] for o in objects]).float().reshape(-1, 4),
        labels=torch.tensor([o[1] for o in objects], dtype=torch.long),
        masks=BitmapMasks(masks, height, width),
    )
    return result


def proposals(*boxes) -> InstanceData:
    return InstanceData(bboxes=torch.tensor(boxes).float().reshape(-1, 4))


def spy(module: torch.nn.Module) -> list[Tensor]:
    """First input of every call of ``module`` from now on."""
    seen: list[Tensor] = []
    module.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    return seen


def softplus(x: float) -> float:
    return math.log(1 + math.exp(x))


# The mask is the left half of its box: IoU 0.5 with a mask that fills the box.
HALF = ((8, 8, 40, 40), 1, (8, 8, 24, 40))


def test_losses_by_hand():
    """Logit 0.2 everywhere is a full mask, for it is above 0 (probability 0.5).

    With ``mask_thr_binary=0.5`` (a probability where the stock head wants a logit;
    trap 5) the mask would be empty, its IoU 0 and the loss too.
    """
    head = say(roi_head(), [-9.0, 0.2, 9.0], [7.0, 0.8, -7.0])
    losses = head.loss(maps(), [proposals()], [sample(objects=[HALF])])
    assert set(losses) == {'loss_mask', 'loss_mask_iou'}
    cross_entropy = (softplus(-0.2) + softplus(0.2)) / 2
    assert losses['loss_mask'].item() == pytest.approx(cross_entropy, rel=1e-5)
    assert losses['loss_mask_iou'].item() == pytest.approx(
        0.5 * (0.8 - 0.5) ** 2, rel=1e-4
    )
    wrong = roi_head(train_cfg__rcnn__mask_thr_binary=0.5)
    say(wrong, [-9.0, 0.2, 9.0], [7.0, 0.8, -7.0])
    losses = wrong.loss(maps(), [proposals()], [sample(objects=[HALF])])
    assert losses['loss_mask_iou'].item() == 0


def test_iou_target_counts_the_object_outside_of_the_box():
    """A box over three quarters of an object: a full mask reaches IoU 0.75."""
    square = ((8, 8, 40, 40), 0, (8, 8, 40, 40))
    head = say(roi_head(), [5.0, -5.0, -5.0], [0.6, 0.0, 0.0])
    losses = head.loss(maps(), [proposals((8, 8, 40, 32))], [sample(objects=[square])])
    # The ground truth itself is sampled as well, with IoU 1.
    expected = 0.5 * ((0.6 - 0.75) ** 2 + (0.6 - 1.0) ** 2) / 2
    assert losses['loss_mask_iou'].item() == pytest.approx(expected, rel=1e-4)


def test_every_object_teaches_its_own_class():
    """Trap 1: labels reach the mask branch, several in one picture."""
    objects = [
        ((0, 0, 32, 32), 2, (0, 0, 32, 32)),
        ((32, 0, 64, 32), 0, (32, 0, 64, 32)),
        ((0, 32, 32, 64), 1, (0, 32, 32, 64)),
    ]
    logits, ious = [1.0, 2.0, 3.0], [0.1, 0.4, 0.7]
    head = say(roi_head(), logits, ious)
    losses = head.loss(maps(), [proposals()], [sample(objects=objects)])
    cross_entropy = sum(softplus(-z) for z in logits) / 3
    assert losses['loss_mask'].item() == pytest.approx(cross_entropy, rel=1e-5)
    expected = 0.5 * sum((b - 1) ** 2 for b in ious) / 3
    assert losses['loss_mask_iou'].item() == pytest.approx(expected, rel=1e-4)


def test_masks_are_trained_on_boxes_of_iou_one_half_and_the_ground_truth():
    head = roi_head()
    seen = spy(head.mask_head)
    gt = ((0, 0, 40, 40), 0, (0, 0, 40, 40))
    boxes = [
        (0, 0, 40, 40),  # IoU 1
        (0, 0, 40, 20),  # 0.5
        (0, 0, 40, 19),  # 0.475: out
        (40, 40, 60, 60),  # 0: out
        (-40, 0, 40, 40),  # 0.5, half of it out of the picture
    ]
    head.loss(maps(), [proposals(*boxes)], [sample(objects=[gt])])
    assert [len(x) for x in seen] == [4]


def test_at_most_a_quarter_of_the_sample_is_positive():
    head = roi_head(train_cfg__rcnn__sampler__num=12)
    seen = spy(head.mask_head)
    gt = ((0, 0, 40, 40), 0, (0, 0, 40, 40))
    head.loss(maps(), [proposals(*[gt[0]] * 30)], [sample(objects=[gt])])
    assert [len(x) for x in seen] == [3]


def test_no_objects_cost_exactly_nothing():
    """And still a gradient for everyone: a distributed run would hang without."""
    head = roi_head()
    x = maps(2)
    losses = head.loss(x, [proposals((0, 0, 30, 30)), proposals()], [sample()] * 2)
    assert losses['loss_mask'].item() == 0 and losses['loss_mask_iou'].item() == 0
    sum(losses.values()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and not parameter.grad.any(), name
    for feat in x[:3]:
        assert feat.grad is not None and not feat.grad.any()


def test_picture_without_objects_does_not_change_the_loss_of_its_neighbour():
    head = roi_head()
    both, one = maps(2), maps(2)
    one = tuple(m[:1] for m in one)
    objects = sample(objects=[HALF])
    together = head.loss(both, [proposals(), proposals()], [objects, sample()])
    alone = head.loss(one, [proposals()], [objects])
    for name in alone:
        assert together[name].item() == pytest.approx(alone[name].item(), rel=1e-5)
        assert alone[name].item() > 0


def test_every_parameter_learns():
    head = roi_head()
    x = maps()
    sum(head.loss(x, [proposals()], [sample(objects=[HALF])]).values()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad.isfinite().all(), name
    # 32 x 32 of 64 x 64 is read from P3, which learns too.
    assert [m.grad is not None and bool(m.grad.any()) for m in x[:3]] == [
        True,
        False,
        False,
    ]
    assert head.mask_head.spatial_attention.conv.weight.grad.any()
    assert head.mask_iou_head.convs[0].weight.grad.any()


def test_labels_and_scores_of_the_detector_survive():
    """Traps 1 and 5: ``scores`` stay, ``mask_scores`` = score x IoU of the class."""
    head = say(roi_head(), [9.0, -9.0, 9.0], [0.9, 0.5, 0.1]).eval()
    boxes = [(8, 8, 24, 40), (0, 0, 64, 64), (30, 30, 50, 50), (2, 2, 9, 9)]
    found = detections(boxes, [2, 1, 0, 2], [0.9, 0.8, 0.7, 0.6])
    (result,) = head.predict(maps(), [found], [sample()])
    assert result.labels.tolist() == [2, 1, 0, 2]
    assert result.scores.tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6])
    assert result.mask_scores.tolist() == pytest.approx(
        [0.9 * 0.1, 0.8 * 0.5, 0.7 * 0.9, 0.6 * 0.1]
    )
    assert torch.equal(result.bboxes, torch.tensor(boxes).float())
    # Each mask is its own class's: full for 0 and 2, empty for 1.
    expected = torch.zeros(4, 64, 64, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(expected, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    expected[1] = False
    assert result.masks.dtype == torch.bool
    assert torch.equal(result.masks, expected)


@pytest.mark.parametrize('probability, full', [(0.49, False), (0.51, True)])
def test_masks_are_cut_at_probability_one_half(probability, full):
    head = say(roi_head(1), [math.log(probability / (1 - probability))], [1.0]).eval()
    (result,) = head.predict(maps(), [detections([(8, 8, 36, 36)], [0])], [sample()])
    assert result.masks.sum().item() == (28 * 28 if full else 0)


def test_results_in_pixels_of_the_original_picture():
    head = say(roi_head(1), [9.0], [1.0]).eval()
    box = (8.0, 9, 24, 39)
    expected = {True: ((4.0, 6, 12, 26), (40, 32)), False: (box, (60, 64))}
    for rescale, (scaled, size) in expected.items():
        (result,) = head.predict(
            maps(),
            [detections([box], [0])],
            [sample((60, 64), scale_factor=(2.0, 1.5))],
            rescale=rescale,
        )
        assert result.bboxes.tolist() == [list(scaled)]
        x1, y1, x2, y2 = (int(v) for v in scaled)
        mask = torch.zeros(1, *size, dtype=torch.bool)
        mask[:, y1:y2, x1:x2] = True
        assert torch.equal(result.masks, mask)


def test_boxes_are_clipped_after_the_masks_are_made():
    """Trap 3: the heads see the unclipped box, the user gets the clipped one."""
    head = say(roi_head(), [9.0, 9.0, 9.0], [0.5, 0.25, 0.75]).eval()
    seen: list[Tensor] = []
    head.mask_roi_extractor.register_forward_pre_hook(
        lambda _, args: seen.append(args[1])
    )
    boxes = [
        (-10.0, -5, 30, 80),
        (64, 10, 90, 50),  # right of the picture: nothing is left
        (50, 40, 80, 70),
        (10, -30, 40, 0),  # above it
        (20, 20, 20, 40),  # without width
        (0, 0, 64, 60),
    ]
    found = detections(boxes, [0, 1, 2, 0, 1, 2], [0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    (result,) = head.predict(maps(), [found], [sample((60, 64))])
    assert torch.cat(seen)[:, 1:].tolist() == [list(b) for b in boxes]
    assert result.bboxes.tolist() == [[0, 0, 30, 60], [50, 40, 64, 60], [0, 0, 64, 60]]
    assert result.labels.tolist() == [0, 2, 2]
    assert result.scores.tolist() == pytest.approx([0.9, 0.7, 0.4])
    assert result.mask_scores.tolist() == pytest.approx([0.45, 0.525, 0.3])
    assert result.masks.sum((1, 2)).tolist() == [30 * 60, 14 * 20, 64 * 60]


def test_masks_follow_their_boxes_through_clipping():
    """One box dropped in the middle must not shift the masks behind it."""
    head = say(roi_head(2), [9.0, -9.0], [1.0, 1.0]).eval()
    boxes = [(0, 0, 8, 8), (70, 0, 90, 9), (8, 8, 24, 24)]
    (result,) = head.predict(maps(), [detections(boxes, [1, 1, 0])], [sample()])
    assert result.masks.sum((1, 2)).tolist() == [0, 16 * 16]


@pytest.mark.parametrize('rescale, size', [(True, (40, 32)), (False, (60, 64))])
def test_nothing_detected(rescale, size):
    head = roi_head().eval()
    (result,) = head.predict(
        maps(),
        [detections([], [])],
        [sample((60, 64), scale_factor=(2.0, 1.5))],
        rescale=rescale,
    )
    assert len(result) == 0
    assert result.bboxes.shape == (0, 4)
    assert result.masks.shape == (0, *size) and result.masks.dtype == torch.bool
    assert (
        result.scores.shape == result.labels.shape == result.mask_scores.shape == (0,)
    )


def test_nothing_detected_in_one_of_two_pictures():
    head = say(roi_head(), [9.0, 9.0, 9.0], [0.5, 0.5, 0.5]).eval()
    found = [detections([], []), detections([(8, 8, 24, 24)], [1])]
    nothing, something = head.predict(maps(2), found, [sample(), sample((32, 48))])
    assert nothing.masks.shape == (0, 64, 64)
    assert something.masks.shape == (1, 32, 48)
    assert something.masks.sum().item() == 16 * 16


def constant_levels(batch: int) -> tuple:
    return tuple(
        torch.full((batch, CHANNELS, 128 // s, 128 // s), float(level))
        for level, s in enumerate((8, 16, 32), 3)
    )


@pytest.mark.parametrize('call', ['loss', 'predict', 'forward'])
def test_levels_go_by_each_pictures_own_size(call):
    """Trap 6, through the head: 48 x 48 is most of one picture, little of another."""
    head = roi_head()
    seen = spy(head.mask_head)
    box = (8, 8, 56, 56)
    samples = [sample(s, objects=[(box, 0, box)]) for s in ((64, 64), (128, 128))]
    x, found = constant_levels(2), [detections([box], [0]), detections([box], [0])]
    if call == 'loss':
        head.loss(x, [proposals(), proposals()], samples)
    elif call == 'predict':
        head.eval().predict(x, found, samples)
    else:
        head.eval().forward(x, found, samples)
    (features,) = seen
    assert features.mean((1, 2, 3)).tolist() == pytest.approx([5.0, 3.0], rel=1e-5)


def test_raw_outputs():
    head = say(roi_head(), [1.0, 2.0, 3.0], [0.1, 0.2, 0.3]).eval()
    found = [detections([(0, 0, 9, 9), (0, 0, 30, 30)], [0, 2]), detections([], [])]
    logits, ious = head.forward(maps(2), found, [sample(), sample()])
    assert logits.shape == (2, 3, 28, 28)
    assert logits[:, :, 5, 5].tolist() == [[1.0, 2.0, 3.0]] * 2
    assert ious.shape == (2, 3)
    assert ious[0].tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert head.forward(maps(2), found)[0].shape == logits.shape


def test_iou_head_reads_the_mask_of_the_boxes_own_class():
    """In training and at test time alike, or its scores would mean nothing."""
    head = say(roi_head(), [1.0, 2.0, 3.0], [0.1, 0.2, 0.3])
    seen: list[Tensor] = []
    head.mask_iou_head.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    head.loss(maps(), [proposals()], [sample(objects=[HALF])])
    head.eval().predict(maps(), [detections([(0, 0, 9, 9)], [2])], [sample()])
    assert [s.shape for s in seen] == [(1, 28, 28), (1, 28, 28)]
    assert [s[0, 9, 9].item() for s in seen] == [2.0, 3.0]


def test_without_mask_scoring():
    head = roi_head(roi_head__mask_iou_head=None)
    losses = head.loss(maps(), [proposals()], [sample(objects=[HALF])])
    assert set(losses) == {'loss_mask'}
    head.eval()
    found = [detections([(0, 0, 9, 9)], [0])]
    (result,) = head.predict(maps(), found, [sample()])
    assert 'mask_scores' not in result
    assert len(head.forward(maps(), found)) == 1


def test_one_mask_for_all_classes():
    """``class_agnostic`` of the stock head: a single mask, an IoU for each class."""
    head = roi_head(roi_head__mask_head__class_agnostic=True)
    say(head, [0.2], [0.9, 0.8, 0.1])
    losses = head.loss(maps(), [proposals()], [sample(objects=[HALF])])
    cross_entropy = (softplus(-0.2) + softplus(0.2)) / 2
    assert losses['loss_mask'].item() == pytest.approx(cross_entropy, rel=1e-5)
    expected = 0.5 * (0.8 - 0.5) ** 2
    assert losses['loss_mask_iou'].item() == pytest.approx(expected, rel=1e-4)
    found = detections([(8, 8, 36, 36)], [2], [0.5])
    (result,) = head.eval().predict(maps(), [found], [sample()])
    assert result.mask_scores.tolist() == pytest.approx([0.05])
    assert result.masks.sum().item() == 28 * 28


def test_stock_mask_head_computes_every_class():
    """It has no labels to be asked for; the answer is that of the box's own class."""
    head = roi_head(roi_head__mask_head__type='FCNMaskHead')
    say(head, [9.0, -9.0, 9.0], [0.9, 0.5, 0.1]).eval()
    found = detections([(8, 8, 24, 40), (30, 30, 50, 50)], [1, 2])
    (result,) = head.predict(maps(), [found], [sample()])
    assert result.masks.sum((1, 2)).tolist() == [0, 20 * 20]


def test_masks_are_those_of_all_classes_picked():
    """What the heads say without labels, as in training, picked by hand."""
    head = roi_head().eval()
    boxes = [(8.0, 8, 24, 40), (0, 0, 64, 64), (30, 30, 50, 50)]
    found, x = detections(boxes, [2, 0, 1]), maps()
    logits, ious = head.forward(x, [found], [sample()])
    (masks,) = head.predict_masks(x, [found], [sample().metainfo])
    own = range(3), [2, 0, 1]
    torch.testing.assert_close(masks.probabilities, logits[own].sigmoid())
    torch.testing.assert_close(masks.ious, ious[own])


def test_what_scores_below_the_threshold_gets_no_mask(monkeypatch):
    """Box scores decide before the heads, mask scores before pasting."""
    head = say(roi_head(), [9.0, 9.0, 9.0], [1.0, 0.5, 1.0]).eval()
    boxes = [(0, 0, 8, 8), (8, 8, 24, 24), (0, 0, 40, 40), (30, 30, 50, 50)]
    pictures = [detections(boxes, [2, 1, 0, 0], [0.75, 0.7, 0.5, 0.4999])]
    pictures.append(detections([], []))
    head.test_cfg.score_thr = 0.5
    heads, pasted = spy(head.mask_head), []
    monkeypatch.setitem(PASTE, 'bitmap', lambda *args: pasted.append(args) or args[0])
    result, nothing = head.predict(maps(2), pictures, [sample(), sample()])
    assert [len(x) for x in heads] == [3]
    assert [args[1].tolist() for args in pasted] == [[[0, 0, 8, 8], [0, 0, 40, 40]], []]
    assert result.scores.tolist() == [0.75, 0.5] and result.labels.tolist() == [2, 0]
    assert len(nothing) == 0


def test_without_a_threshold_nothing_is_left_out():
    """Not even a mask whose IoU is predicted to be below 0."""
    head = say(roi_head(), [9.0, 9.0, 9.0], [-0.1, -0.1, -0.1]).eval()
    found = detections([(0, 0, 8, 8), (8, 8, 24, 24)], [0, 1], [0.5, 0.0])
    (result,) = head.predict(maps(), [found], [sample()])
    assert result.masks.sum((1, 2)).tolist() == [64, 256]
    head.test_cfg.score_thr = 0.9
    (result,) = head.predict(maps(), [found], [sample()])
    assert result.masks.shape == (0, 64, 64)


@pytest.mark.parametrize('rescale', [True, False])
def test_roi_masks_are_what_the_bitmaps_are_pasted_from(rescale):
    head = roi_head().eval()
    head.mask_head.conv_logits.weight.data *= 100  # neither empty nor full
    boxes = [(8.0, 8, 24, 40), (0, -9, 64, 64), (70, 0, 90, 9), (30, 30, 50, 50)]
    found, x = detections(boxes, [2, 0, 1, 1]), maps()
    shown = sample((60, 64), scale_factor=(2.0, 1.5))
    results = {}
    for mask_format in ('bitmap', 'roi'):
        head.test_cfg.mask_format = mask_format
        (results[mask_format],) = head.predict(x, [found[:]], [shown], rescale=rescale)
    bitmap, roi = results['bitmap'], results['roi']
    assert set(roi.keys()) == set(bitmap.keys()) - {'masks'} | {'roi_masks'}
    assert roi.roi_masks.shape == (3, 28, 28)
    pasted = paste_dense(roi.roi_masks, roi.bboxes, tuple(bitmap.masks.shape[1:]), 0.5)
    assert torch.equal(pasted, bitmap.masks)
    assert 0.05 < bitmap.masks.float().mean() < 0.6
    assert roi[[2, 0]].to('cpu').numpy().roi_masks.shape == (2, 28, 28)


def test_metrics_say_that_roi_masks_are_no_masks(tmp_path):
    head = say(roi_head(1), [9.0], [1.0]).eval()
    head.test_cfg.mask_format = 'roi'
    found = detections([(10, 10, 50, 50)], [0], [0.9])
    data_sample = sample()
    with torch.no_grad():
        (data_sample.pred_instances,) = head.predict(maps(), [found], [data_sample])
    metric = CocoMetric(coco_file(tmp_path / 'gt.json'), metric=['bbox', 'segm'])
    metric.dataset_meta = dict(classes=('thing',))
    metric.process({}, [data_sample.to_dict()])
    with pytest.raises(KeyError, match='segm is not in results'):
        metric.evaluate(size=1)


def test_heads_that_count_different_classes():
    with pytest.raises(ValueError) as error:
        roi_head(roi_head__mask_iou_head__num_classes=4)
    assert 'mask_head.num_classes=3 but mask_iou_head.num_classes=4' in str(error.value)


def coco_file(path) -> str:
    """One picture with one object whose mask is the left half of its box."""
    left = [[10, 10, 30, 10, 30, 50, 10, 50]]
    annotation = dict(
        id=1,
        image_id=1,
        category_id=1,
        bbox=[10, 10, 40, 40],
        area=800,
        iscrowd=0,
        segmentation=left,
    )
    content = dict(
        info={},
        images=[dict(id=1, width=64, height=64, file_name='1.jpg')],
        annotations=[annotation],
        categories=[dict(id=1, name='thing')],
    )
    path.write_text(json.dumps(content))
    return str(path)


def test_coco_metric_ranks_masks_by_mask_scores(tmp_path):
    """Trap 5: the box with the better score has the wrong mask, and says so.

    Boxes: both right, AP 1. Masks by ``mask_scores``: the right one first, AP 1;
    by ``scores``: the wrong one first, precision and AP 0.5.
    """
    head = roi_head(1).eval()
    logits = torch.full((2, 1, 28, 28), -9.0)
    logits[0, :, :, 14:] = 9.0  # the right half: IoU 0
    logits[1, :, :, :14] = 9.0  # the left half: IoU 1
    head.mask_head.forward = lambda features, labels: logits
    head.mask_iou_head.forward = lambda *_: torch.tensor([[0.1], [0.9]])
    box = (10, 10, 50, 50)
    found = detections([box, box], [0, 0], [0.9, 0.8])
    data_sample = sample()
    (data_sample.pred_instances,) = head.predict(maps(), [found], [data_sample])

    def average_precision() -> tuple[float, float]:
        metric = CocoMetric(coco_file(tmp_path / 'gt.json'), metric=['bbox', 'segm'])
        metric.dataset_meta = dict(classes=('thing',))
        metric.process({}, [data_sample.to_dict()])
        result = metric.evaluate(size=1)
        return result['coco/bbox_mAP'], result['coco/segm_mAP']

    assert average_precision() == (1.0, 1.0)
    del data_sample.pred_instances.mask_scores
    assert average_precision() == (1.0, pytest.approx(0.5, abs=2e-3))
