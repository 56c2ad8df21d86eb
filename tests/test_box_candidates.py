"""Boxes of the FCOS head: the ranking rule, and MMDetection's head as the oracle."""

import math
from itertools import product

import pytest
import torch
from mmdet.models.dense_heads import FCOSHead
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from torch import Tensor

from mmdet_centermask.models.box_candidates import predict_boxes, select_candidates

STRIDES = [8, 16, 32]
RANGES = ((-1, 64), (64, 128), (128, 1e8))
META = dict(img_shape=(64, 96), scale_factor=(1.0, 1.0))


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def config(**options) -> ConfigDict:
    defaults = dict(score_thr=0.05, nms_pre=1000, max_per_img=50)
    nms = dict(type='nms', iou_threshold=0.6)
    return ConfigDict(**{**defaults, 'nms': nms, **options})


def fcos(num_classes: int = 3, strides=STRIDES, seed: int = 0, **options) -> FCOSHead:
    """A stock head in eval mode whose random output layers say something."""
    init_default_scope('mmdet')
    torch.manual_seed(seed)
    head = FCOSHead(
        num_classes,
        in_channels=8,
        feat_channels=8,
        stacked_convs=1,
        strides=strides,
        regress_ranges=RANGES[: len(strides)],
        norm_on_bbox=True,
        centerness_on_reg=True,
        norm_cfg=dict(type='GN', num_groups=2),
        bbox_coder=dict(type='DistancePointBBoxCoder', clip_border=False),
        **options,
    )
    for conv in (head.conv_cls, head.conv_reg, head.conv_centerness):
        conv.weight.data.normal_(0, 0.3)
    head.conv_reg.bias.data.fill_(2.0)
    head.conv_cls.bias.data.fill_(-1.0)
    return head.eval()


def pyramid(batch: int = 2, height: int = 64, width: int = 96) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(batch, 8, height // s, width // s) for s in STRIDES]


def single_level(cells: dict, num_classes: int = 2, size=(8, 12)) -> tuple:
    """Head outputs of one stride-8 level that are silent but for ``cells``.

    ``cells`` maps (row, column) to (class scores, centerness, distances in pixels).
    """
    cls = torch.full((1, num_classes, *size), -20.0)
    distances = torch.zeros(1, 4, *size)
    centerness = torch.zeros(1, 1, *size)
    for (row, column), (scores, centre, ltrb) in cells.items():
        for k, score in enumerate(scores):
            cls[0, k, row, column] = logit(score) if score else -20.0
        centerness[0, 0, row, column] = logit(centre)
        distances[0, :, row, column] = torch.tensor(ltrb).float()
    return [cls], [distances], [centerness]


@pytest.mark.parametrize('score_thr', [0.0, 0.05, 0.4, 0.9])
@pytest.mark.parametrize('limit', [1, 7, 10_000])
def test_candidates_equal_a_plain_loop(score_thr, limit):
    torch.manual_seed(0)
    cls, centerness = torch.randn(3, 5, 7) * 2, torch.randn(1, 5, 7) * 2
    found = []
    for row, column, k in product(range(5), range(7), range(3)):
        score = 1 / (1 + math.exp(-cls[k, row, column].item()))
        centre = 1 / (1 + math.exp(-centerness[0, row, column].item()))
        if score > score_thr:
            found.append((math.sqrt(score * centre), k, row * 7 + column))
    found = sorted(found, reverse=True)[:limit]
    scores, labels, locations = select_candidates(cls, centerness, score_thr, limit)
    assert found
    assert scores.tolist() == pytest.approx([f[0] for f in found], rel=1e-5)
    assert labels.tolist() == [f[1] for f in found]
    assert locations.tolist() == [f[2] for f in found]


def test_threshold_is_on_the_class_score_and_strict():
    cls = torch.tensor([logit(0.3), logit(0.2), 0.0]).reshape(3, 1, 1)
    centerness = torch.full((1, 1, 1), logit(0.01))
    # Centerness does not take part: 0.3 * 0.01 is far below.
    _, labels, _ = select_candidates(cls, centerness, 0.25, 10)
    assert sorted(labels.tolist()) == [0, 2]
    # Exactly at the threshold is out; sigmoid(0) is exactly 0.5.
    _, labels, _ = select_candidates(cls, centerness, 0.5, 10)
    assert labels.tolist() == []
    # And 0 keeps all, however small.
    cls[1] = -80.0
    assert len(select_candidates(cls, centerness, 0.0, 10)[0]) == 3


def test_limit_ranks_by_the_product_not_by_the_class_score():
    """Location 0 has the better class score, location 1 the better product."""
    cls = torch.tensor([logit(0.9), logit(0.5)]).reshape(1, 1, 2)
    centerness = torch.tensor([logit(0.1), logit(0.8)]).reshape(1, 1, 2)
    scores, _, locations = select_candidates(cls, centerness, 0.05, 1)
    assert locations.tolist() == [1]
    assert scores.item() == pytest.approx(math.sqrt(0.4))


def test_stock_head_ranks_by_the_class_score():
    """The same case there: the difference is real, and the limit is what shows it."""
    near, far = (8.0, 8, 8, 8), (4.0, 4, 4, 4)
    outputs = single_level(
        {(2, 2): ((0.9, 0), 0.1, near), (5, 8): ((0.5, 0), 0.8, far)}
    )
    head = fcos(2, strides=[8])
    cfg = config(nms_pre=1)
    (stock,) = head.predict_by_feat(*outputs, batch_img_metas=[META], cfg=cfg)
    (ours,) = predict_boxes(head, outputs, [META], cfg)
    assert stock.bboxes.tolist() == [[12, 12, 28, 28]]
    assert ours.bboxes.tolist() == [[64, 40, 72, 48]]


def test_limit_counts_per_level():
    outputs = [[torch.zeros(1, c, 4, 4), torch.zeros(1, c, 2, 2)] for c in (1, 4, 1)]
    outputs[1] = [d + 3 for d in outputs[1]]
    head = fcos(1, strides=[8, 16])
    (found,) = predict_boxes(head, outputs, [META], config(nms_pre=3))
    assert len(found) == 6


@pytest.mark.parametrize('rows', [0, 1])
def test_scores_are_the_root_of_the_stock_scores(rows):
    """Trap 4: rooted once; boxes, labels and order are those of stock MMDetection."""
    head = fcos()
    x = pyramid()
    metas = [META, dict(img_shape=(60, 90), scale_factor=(1.0, 1.0))]
    cfg = config(nms_pre=100_000, max_per_img=40)
    with torch.no_grad():
        outputs = head(x)
    stock = head.predict_by_feat(*outputs, batch_img_metas=metas, cfg=cfg)[rows]
    ours = predict_boxes(head, outputs, metas, cfg)[rows]
    assert len(ours) == len(stock) > 20
    assert len(set(ours.labels.tolist())) == 3
    assert torch.equal(ours.labels, stock.labels)
    assert torch.allclose(ours.bboxes, stock.bboxes)
    assert torch.allclose(ours.scores, stock.scores.sqrt(), atol=1e-6)
    # Not a coincidence of scores near 0 or 1, where a second root hides.
    assert (ours.scores - stock.scores).abs().max() > 0.1
    assert (ours.scores.sqrt() - ours.scores).abs().max() > 0.05


def test_boxes_of_training_are_those_of_testing():
    """Trap 2: a training head leaves its distances in strides."""
    head = fcos()
    x = pyramid()
    cfg = config()
    head.train()
    training = predict_boxes(head, head(x), [META] * 2, cfg)
    head.eval()
    testing = predict_boxes(head, head(x), [META] * 2, cfg)
    for a, b in zip(training, testing, strict=True):
        assert len(a) > 20
        assert torch.allclose(a.bboxes, b.bboxes, atol=1e-4)
        assert torch.allclose(a.scores, b.scores)
        assert torch.equal(a.labels, b.labels)


def test_stock_boxes_of_training_are_too_small():
    """What the trap is; once this fails, `distances_in_pixels` must go."""
    head = fcos()
    x = pyramid(1)
    sizes = []
    for mode in (True, False):
        head.train(mode)
        outputs = head(x)
        (found,) = head.predict_by_feat(*outputs, batch_img_metas=[META], cfg=config())
        sizes.append((found.bboxes[:, 2] - found.bboxes[:, 0]).median().item())
    assert sizes[1] > 4 * sizes[0]


def test_heads_without_normed_distances_are_left_alone():
    head = fcos()
    head.norm_on_bbox = False
    head.conv_reg.bias.data.fill_(3.0)  # exp(3) pixels
    x = pyramid(1)
    found = []
    for mode in (True, False):
        head.train(mode)
        found += predict_boxes(head, head(x), [META], config())
    assert len(found[0]) > 20
    assert torch.allclose(found[0].bboxes, found[1].bboxes)


def test_boxes_may_leave_the_picture():
    """Trap 3, in numbers: the point of row 1, column 0 is (4, 12)."""
    outputs = single_level({(1, 0): ((0.8, 0), 0.5, (30, 20, 10, 100))})
    (found,) = predict_boxes(fcos(2, strides=[8]), outputs, [META], config())
    assert found.bboxes.tolist() == [[-26, -8, 14, 112]]
    assert found.scores.tolist() == pytest.approx([math.sqrt(0.4)])


def test_suppression_sees_unclipped_boxes():
    """Trap 3: clipped to the picture, these two would overlap with IoU 0.94."""
    outputs = single_level(
        {
            (3, 0): ((0.9, 0), 0.5, (4, 20, 30, 20)),  # 0..34
            (3, 1): ((0.8, 0), 0.5, (112, 20, 24, 20)),  # -100..36
        }
    )
    head = fcos(2, strides=[8])
    (found,) = predict_boxes(head, outputs, [META], config())
    assert found.bboxes.tolist() == [[0, 8, 34, 48], [-100, 8, 36, 48]]
    head.bbox_coder.clip_border = True
    (clipped,) = predict_boxes(head, outputs, [META], config())
    assert clipped.bboxes.tolist() == [[0, 8, 34, 48]]


def test_suppression_is_per_class_and_at_the_threshold_of_the_config():
    box = (16, 16, 16, 16)
    shifted = (16 + 8 - 4, 16, 16 - 8 + 4, 16)  # 4 px aside: IoU 28 / 36
    outputs = single_level(
        {(4, 4): ((0.9, 0.6), 0.5, box), (4, 5): ((0.7, 0), 0.5, shifted)}
    )
    head = fcos(2, strides=[8])
    (found,) = predict_boxes(head, outputs, [META], config())
    assert found.labels.tolist() == [0, 1]
    assert found.bboxes.tolist() == [[20, 20, 52, 52]] * 2
    assert found.scores.tolist() == pytest.approx([math.sqrt(0.45), math.sqrt(0.3)])
    (found,) = predict_boxes(
        head, outputs, [META], config(nms=dict(type='nms', iou_threshold=0.8))
    )
    assert found.labels.tolist() == [0, 0, 1]


def test_no_more_than_max_per_img_the_best_first():
    head, x = fcos(), pyramid(1)
    (every,) = predict_boxes(head, head(x), [META], config(max_per_img=1000))
    (few,) = predict_boxes(head, head(x), [META], config(max_per_img=5))
    assert len(every) > 50 and len(few) == 5
    assert torch.equal(few.scores, every.scores[:5])
    assert every.scores.tolist() == sorted(every.scores.tolist(), reverse=True)


def test_pictures_do_not_see_each_other():
    head, x = fcos(), pyramid(3)
    outputs = head(x)
    together = predict_boxes(head, outputs, [META] * 3, config())
    for i, result in enumerate(together):
        one = [[maps[i : i + 1] for maps in kind] for kind in outputs]
        (alone,) = predict_boxes(head, one, [META], config())
        assert torch.equal(alone.bboxes, result.bboxes)
        assert torch.equal(alone.scores, result.scores)
        assert torch.equal(alone.labels, result.labels)


def test_nothing_above_the_threshold():
    outputs = single_level({})
    (found,) = predict_boxes(fcos(2, strides=[8]), outputs, [META], config())
    assert found.bboxes.shape == (0, 4)
    assert found.scores.shape == found.labels.shape == (0,)
    assert found.labels.dtype == torch.int64


def test_boxes_carry_no_gradient():
    head, x = fcos().train(), pyramid(1)
    outputs = head(x)
    assert outputs[1][0].requires_grad
    (found,) = predict_boxes(head, outputs, [META], config())
    assert not found.bboxes.requires_grad and not found.scores.requires_grad
    # Nor does decoding touch what the box loss is computed from.
    before = [maps.clone() for maps in outputs[1]]
    predict_boxes(head, outputs, [META], config())
    assert all(torch.equal(a, b) for a, b in zip(before, outputs[1], strict=True))


def test_half_precision_logits_are_scored_in_single_precision():
    cls = torch.tensor([logit(0.3), logit(0.3001)]).reshape(1, 1, 2)
    centerness = torch.zeros(1, 1, 2)
    outputs = [cls[None].half()], [torch.ones(1, 4, 1, 2)], [centerness[None].half()]
    (found,) = predict_boxes(fcos(1, strides=[8]), outputs, [META], config())
    assert found.scores.dtype == found.bboxes.dtype == torch.float32
