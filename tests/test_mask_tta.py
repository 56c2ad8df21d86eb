"""Mask TTA: frames and averages by hand, one view is the plain prediction."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from tiny_centermask import picture, talkative, tiny_model

from mmdet_centermask.models import mask_tta
from mmdet_centermask.models.detector_steps import Steps, steps_of
from mmdet_centermask.models.mask_results import RoIMasks
from mmdet_centermask.models.mask_tta import (
    MaskTTAModel,
    average_masks,
    boxes_to_original,
    boxes_to_view,
    merge_boxes,
    unflip_masks,
)

DIRECTIONS = ('horizontal', 'vertical', 'diagonal')
NMS = dict(type='nms', iou_threshold=0.6)


def meta_of(direction=None, img_shape=(40, 80), scale_factor=(2.0, 4.0), **more):
    return dict(
        img_shape=img_shape,
        scale_factor=scale_factor,
        flip=direction is not None,
        flip_direction=direction,
        **more,
    )


# An original of 40 x 10 pixels (width x height), stretched to 80 x 40.
FRAMES = [
    (None, [5, 1, 15, 3]),
    ('horizontal', [25, 1, 35, 3]),
    ('vertical', [5, 7, 15, 9]),
    ('diagonal', [25, 7, 35, 9]),
]


@pytest.mark.parametrize(('direction', 'original'), FRAMES)
def test_boxes_change_frames_as_by_hand(direction, original):
    in_view = torch.tensor([[10.0, 4, 30, 12]])
    meta = meta_of(direction)
    assert boxes_to_original(in_view, meta).tolist() == [original]
    assert boxes_to_view(torch.tensor([original]), meta).tolist() == in_view.tolist()


@pytest.mark.parametrize('direction', [None, *DIRECTIONS])
def test_boxes_find_back_to_their_view_bit_by_bit(direction):
    generator = torch.Generator().manual_seed(0)
    # Out of the picture too, and with scale factors that no float holds exactly.
    boxes = torch.rand(1000, 4, generator=generator) * 1500 - 100
    for ori_width in (427, 640, 1999):
        meta = meta_of(direction, (800, 1067), (1067 / ori_width, 800 / 427))
        assert torch.equal(boxes_to_view(boxes_to_original(boxes, meta), meta), boxes)


def test_a_pipeline_without_resize_and_flip_leaves_no_trace():
    boxes = torch.tensor([[1.0, 2, 3, 4]])
    assert boxes_to_original(boxes, dict(img_shape=(8, 8))).tolist() == boxes.tolist()
    assert boxes_to_view(boxes, dict(img_shape=(8, 8))).tolist() == boxes.tolist()
    assert unflip_masks(boxes, dict(img_shape=(8, 8))) is boxes


@pytest.mark.parametrize(
    ('direction', 'expected'),
    [
        (None, [[1, 2, 3], [4, 5, 6]]),
        ('horizontal', [[3, 2, 1], [6, 5, 4]]),
        ('vertical', [[4, 5, 6], [1, 2, 3]]),
        ('diagonal', [[6, 5, 4], [3, 2, 1]]),
    ],
)
def test_unflip_masks(direction, expected):
    mask = torch.tensor([[[1, 2, 3], [4, 5, 6]]])
    assert unflip_masks(mask, meta_of(direction)).tolist() == [expected]


def test_average_masks_by_hand():
    views = [
        RoIMasks(torch.tensor([[[1.0, 0.0]]]), torch.tensor([0.5])),
        RoIMasks(torch.tensor([[[0.6, 0.4]]]), torch.tensor([1.0])),
    ]
    mean = average_masks(views, [meta_of(), meta_of('horizontal')])
    torch.testing.assert_close(mean.probabilities, torch.tensor([[[0.7, 0.3]]]))
    assert mean.ious.tolist() == [0.75]
    assert (
        average_masks([RoIMasks(v.probabilities) for v in views], [{}, {}]).ious is None
    )


def boxes_of(*rows):
    """Instances from rows of x1, y1, x2, y2, score, label."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return InstanceData(
        bboxes=table[:, :4], scores=table[:, 4], labels=table[:, 5].long()
    )


def test_merge_boxes_by_hand():
    plain = boxes_of((2, 1, 8, 5, 0.9, 0), (0, 0, 2, 2, 0.3, 0))
    # 20 x 10 shown as 40 x 20 and flipped: x -> (40 - x) / 2, y -> y / 2.
    flipped = boxes_of(
        (24, 2, 36, 10, 0.95, 0),  # the first box again, better: it stays
        (24, 2, 36, 10, 0.5, 1),  # the same place, another class: it stays
        (-4, 0, 10, 20, 0.4, 0),  # reaches out of the picture: kept as it is
    )
    metas = [
        meta_of(None, (10, 20), (1.0, 1.0)),
        meta_of('horizontal', (20, 40), (2.0, 2.0)),
    ]
    merged = merge_boxes([plain, flipped], metas, NMS, 100)
    assert merged.bboxes.dtype == torch.float64
    assert merged.bboxes.tolist() == [
        [2, 1, 8, 5],
        [2, 1, 8, 5],
        [15, 0, 22, 10],
        [0, 0, 2, 2],
    ]
    torch.testing.assert_close(merged.scores, torch.tensor([0.95, 0.5, 0.4, 0.3]))
    assert merged.labels.tolist() == [0, 1, 0, 0]
    assert len(merge_boxes([plain, flipped], metas, NMS, 3)) == 3
    assert len(merge_boxes([boxes_of(), boxes_of()], metas, NMS, 3)) == 0


# The whole way, with answers made up for each view.
class Preprocessor:
    def __call__(self, data, training):
        assert not training
        return data


class Puppet(torch.nn.Module):
    """Looks like a detector; its answers stand in ``SCRIPT``."""

    data_preprocessor = Preprocessor()

    def test_step(self, data):
        raise AssertionError('features would be computed twice')

    def extract_feat(self, inputs):
        return inputs


LEFT = [[1.0, 1.0, 0.0, 0.0]] * 4
RIGHT = [[0.0, 0.0, 1.0, 1.0]] * 4
SCRIPT = dict(
    plain=(boxes_of((2, 2, 6, 6, 0.8, 0)), LEFT, 0.5),
    # 10 x 8 as 20 x 16, mirrored: 2..6 is at 20 - 12 .. 20 - 4, its left half right.
    mirrored=(boxes_of((8, 4, 16, 12, 0.7, 0)), RIGHT, 0.7),
    # A view that sees another object, and nothing in anyone's box.
    blind=(boxes_of((7, 1, 9, 7, 0.6, 2)), [[0.0] * 4] * 4, 0.0),
)


def puppet_steps(module):
    def masks(x, boxes, samples):
        module.asked[x] = [b.bboxes.tolist() for b in boxes]
        _, mask, iou = SCRIPT[x]
        return [
            RoIMasks(torch.tensor([mask] * len(b)), torch.full((len(b),), iou))
            for b in boxes
        ]

    cfg = ConfigDict(nms=NMS, max_per_img=10, mask_thr_binary=0.5)
    return Steps(lambda x, samples: [deepcopy(SCRIPT[x][0])], masks, cfg, cfg)


@pytest.fixture
def puppets(monkeypatch):
    monkeypatch.setattr(mask_tta, 'steps_of', puppet_steps)
    module = Puppet()
    module.asked = {}
    return MaskTTAModel(module=module)


def views_of(*names):
    metas = dict(
        plain=meta_of(None, (8, 10), (1.0, 1.0), ori_shape=(8, 10)),
        mirrored=meta_of('horizontal', (16, 20), (2.0, 2.0), ori_shape=(8, 10)),
        blind=meta_of('diagonal', (8, 10), (1.0, 1.0), ori_shape=(8, 10)),
    )
    samples = [[DetDataSample(metainfo=metas[name])] for name in names]
    return dict(inputs=list(names), data_samples=samples)


def test_the_whole_way_by_hand(puppets):
    (found,) = puppets.test_step(views_of('plain', 'mirrored', 'blind'))
    found = found.pred_instances
    # blind's box is mirrored twice: x 10 - 9 .. 10 - 7, y 8 - 7 .. 8 - 1.
    assert found.bboxes.tolist() == [[2, 2, 6, 6], [1, 1, 3, 7]]
    assert found.labels.tolist() == [0, 2]
    torch.testing.assert_close(found.scores, torch.tensor([0.8, 0.6]))
    # Mean IoU (0.5 + 0.7 + 0) / 3 = 0.4.
    torch.testing.assert_close(found.mask_scores, torch.tensor([0.32, 0.24]))
    # Two of three views say left half, 2/3 >= 0.5: columns 2 and 3.
    expected = np.zeros((8, 10), bool)
    expected[2:6, 2:4] = True
    assert (found.masks[0].numpy() == expected).all()
    assert puppets.module.asked == dict(
        plain=[[[2, 2, 6, 6], [1, 1, 3, 7]]],
        mirrored=[[[8, 4, 16, 12], [14, 2, 18, 14]]],
        blind=[[[4, 2, 8, 6], [7, 1, 9, 7]]],
    )


def test_masks_of_most_views_win(puppets):
    (found,) = puppets.test_step(views_of('plain', 'blind', 'blind'))
    assert not found.pred_instances.masks.any()


def test_masks_are_asked_for_boxes_that_pass_the_threshold(puppets, monkeypatch):
    def picky(module):
        steps = puppet_steps(module)
        return steps._replace(mask_cfg=ConfigDict(steps.mask_cfg, score_thr=0.7))

    monkeypatch.setattr(mask_tta, 'steps_of', picky)
    (found,) = puppets.test_step(views_of('plain', 'blind'))
    assert puppets.module.asked['plain'] == [[[2, 2, 6, 6]]]
    assert len(found.pred_instances) == 0  # its mask score is 0.8 * (0.5 + 0) / 2


def test_tta_cfg_overrides_the_detectors_own(puppets):
    assert puppets.max_per_img == 10
    narrow = MaskTTAModel(module=puppets.module, tta_cfg=dict(max_per_img=1))
    assert narrow.nms == NMS
    (found,) = narrow.test_step(views_of('plain', 'blind'))
    assert len(found.pred_instances) == 1


# Real networks.
def tiny_mask_rcnn():
    from mmengine.config import Config
    from tiny_centermask import CONFIGS

    cfg = Config.fromfile(CONFIGS / '_base_' / 'models' / 'vovnet_mask_rcnn.py').model
    cfg.backbone.update(arch='V-19-slim-dw', init_cfg=None)
    cfg.neck.update(in_channels=[112, 256, 384, 512], out_channels=32)
    cfg.rpn_head.update(in_channels=32, feat_channels=32)
    for name in ('bbox_roi_extractor', 'mask_roi_extractor'):
        cfg.roi_head[name].out_channels = 32
    cfg.roi_head.bbox_head.update(in_channels=32, fc_out_channels=32, num_classes=3)
    cfg.roi_head.mask_head.update(in_channels=32, conv_out_channels=32, num_classes=3)
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    model.init_weights()
    torch.nn.init.normal_(model.roi_head.bbox_head.fc_cls.weight, std=3)
    return model


def decisive(model):
    """No mask with plateaus at probability 0.5 exactly, where rounding would decide."""
    torch.manual_seed(0)
    logits = model.roi_head.mask_head.conv_logits
    torch.nn.init.normal_(logits.weight, std=10)
    torch.nn.init.constant_(logits.bias, -0.1)
    return model.eval()


@pytest.fixture(scope='module')
def networks():
    return dict(
        centermask=decisive(talkative(tiny_model())),
        mask_rcnn=decisive(tiny_mask_rcnn()),
    )


def one_view(shown, direction=None):
    """What the data loader gives for one picture under one augmentation."""
    pixels, sample = deepcopy(shown)
    if direction is not None:
        pixels = pixels.flip(mask_tta.FLIPPED_DIMS[direction])
    sample.set_metainfo(dict(flip=direction is not None, flip_direction=direction))
    return pixels, sample


def tta_batch(*pictures):
    """Collate lists of views, one list for each picture, as the data loader does."""
    batch = [
        dict(inputs=[v[0] for v in views], data_samples=[v[1] for v in views])
        for views in pictures
    ]
    return pseudo_collate(batch)


def plain(model, *pictures):
    batch = [dict(inputs=p, data_samples=deepcopy(s)) for p, s in pictures]
    with torch.no_grad():
        return [s.pred_instances for s in model.test_step(pseudo_collate(batch))]


def tta(model, *pictures):
    samples = MaskTTAModel(module=model).test_step(tta_batch(*pictures))
    return [s.pred_instances for s in samples]


def assert_same(found, expected, pixels=0.0, rtol=1e-6):
    assert set(found.keys()) == set(expected.keys())
    assert len(found) == len(expected)
    for key in set(found.keys()) - {'masks'}:
        torch.testing.assert_close(found[key], expected[key], rtol=rtol, atol=1e-6)
    differing = (found.masks != expected.masks).float().mean()
    assert differing <= pixels, f'{differing:.2%} of the mask pixels differ'


SHOWN = [
    picture(96, 128, [(10, 10, 60, 70)], scale_factor=(0.8, 0.75), seed=1),
    picture(80, 72, [(20, 8, 50, 72)], scale_factor=(1.6, 1.6), seed=2),
]


@pytest.mark.parametrize('name', ['centermask', 'mask_rcnn'])
def test_one_view_is_the_plain_prediction(networks, name):
    model = networks[name]
    expected = plain(model, *SHOWN)
    assert min(map(len, expected)) > 5, 'the test shows nothing'
    found = tta(model, *([one_view(shown)] for shown in SHOWN))
    for a, b in zip(found, expected, strict=True):
        assert_same(a, b)


def test_seeing_the_same_twice_changes_nothing(networks):
    model = networks['centermask']
    expected = plain(model, *SHOWN)
    found = tta(model, *([one_view(shown), one_view(shown)] for shown in SHOWN))
    for a, b in zip(found, expected, strict=True):
        assert_same(a, b)


@pytest.mark.parametrize('direction', DIRECTIONS)
@pytest.mark.parametrize('name', ['centermask', 'mask_rcnn'])
def test_a_flipped_view_alone_is_the_flipped_pictures_prediction(
    networks, name, direction
):
    """Flip by hand, predict, flip the result back by hand."""
    shown = SHOWN[0]
    height, width = shown[1].ori_shape
    (expected,) = plain(
        networks[name], (shown[0].flip(mask_tta.FLIPPED_DIMS[direction]), shown[1])
    )
    x1, y1, x2, y2 = expected.bboxes.unbind(1)
    if direction != 'vertical':
        x1, x2 = width - x2, width - x1
    if direction != 'horizontal':
        y1, y2 = height - y2, height - y1
    expected.bboxes = torch.stack([x1, y1, x2, y2], 1)
    expected.masks = expected.masks.flip(mask_tta.FLIPPED_DIMS[direction])
    (found,) = tta(networks[name], [one_view(shown, direction)])
    torch.testing.assert_close(found.bboxes, expected.bboxes, rtol=0, atol=1e-3)
    found.bboxes = expected.bboxes
    assert_same(found, expected, pixels=1e-4)


def test_batch_is_the_pictures_one_by_one(networks):
    model = networks['centermask']
    shown = [picture(96, 96, [(10, 10, 60, 70)], seed=seed) for seed in (1, 2)]
    views = [[one_view(each), one_view(each, 'horizontal')] for each in shown]
    together = tta(model, *deepcopy(views))
    for found, view in zip(together, views, strict=True):
        (alone,) = tta(model, view)
        assert len(alone) > 5, 'the test shows nothing'
        torch.testing.assert_close(found.bboxes, alone.bboxes, rtol=0, atol=1e-3)
        found.bboxes = alone.bboxes
        assert_same(found, alone, pixels=1e-4, rtol=1e-4)


def test_scales_and_flips_together(networks):
    """Two scales of one picture: both are asked, the answer is in its pixels."""
    small, large = (
        picture(64 * k, 64 * k, [(8 * k, 8 * k, 40 * k, 48 * k)], scale_factor=(k, k))
        for k in (1, 2)
    )
    views = [one_view(small), one_view(large), one_view(large, 'vertical')]
    (found,) = tta(networks['centermask'], views)
    assert found.masks.shape == (len(found), 64, 64)
    assert len(found) > 5
    assert found.bboxes.min() >= 0
    assert found.bboxes.max() <= 64
    for mask, (x1, y1, x2, y2) in zip(found.masks, found.bboxes, strict=True):
        rows, columns = mask.nonzero().unbind(1)
        if len(rows):
            assert x1 - 1 <= columns.min()
            assert columns.max() <= x2
            assert y1 - 1 <= rows.min()
            assert rows.max() <= y2


def test_no_detections_at_all(networks):
    model = deepcopy(networks['centermask'])
    torch.nn.init.constant_(model.bbox_head.conv_cls.bias, -1e4)
    (expected,) = plain(model, SHOWN[0])
    (found,) = tta(model, [one_view(SHOWN[0]), one_view(SHOWN[0], 'horizontal')])
    assert len(found) == len(expected) == 0
    assert set(found.keys()) == set(expected.keys())
    assert found.masks.shape == expected.masks.shape
    assert found.masks.dtype == torch.bool


@pytest.mark.parametrize('kind', ['FCOS', 'CascadeRCNN'])
def test_what_cannot_be_augmented_is_refused(kind):
    module = MODELS.get(f'mmdet.{kind}').__new__(MODELS.get(f'mmdet.{kind}'))
    torch.nn.Module.__init__(module)
    with pytest.raises(TypeError, match=f'{kind} with roi_head=NoneType'):
        steps_of(module)


def test_a_subclass_with_its_own_prediction_is_refused(networks):
    class Other(type(networks['centermask'])):
        def predict(self, *args, **kwargs):
            raise NotImplementedError

    module = Other.__new__(Other)
    torch.nn.Module.__init__(module)
    with pytest.raises(TypeError, match='Other'):
        steps_of(module)
