"""The exportable network against `CenterMask.predict`, in PyTorch; what is refused."""

from __future__ import annotations

import pytest
import torch
from exported_tiny import finder
from mmcv.ops import DeformConv2dPack, ModulatedDeformConv2dPack
from mmengine.config import Config
from tiny_centermask import batch_of, picture, talkative, tiny_config, tiny_model
from torch import nn

from mmdet_centermask.deploy import operators
from mmdet_centermask.deploy.exportable_centermask import (
    ExportableCenterMask,
    best_locations,
    clip,
)
from mmdet_centermask.deploy.grid_sampled_conv import GridSampledConv
from mmdet_centermask.experiment import ExperimentError
from mmdet_centermask.models.box_candidates import select_candidates
from mmdet_centermask.models.mask_paste import paste_dense


def answers(model: nn.Module, *pictures) -> list[tuple]:
    """(what `predict` says, what the exportable network says) for each picture."""
    images, samples = batch_of(model, *pictures)
    sizes = torch.tensor([sample.img_shape for sample in samples])
    with torch.no_grad():
        found = ExportableCenterMask(model)(images, sizes)
        model.predict(images, samples, rescale=False)
    counts = torch.bincount(found.pictures, minlength=len(pictures)).tolist()
    parts = zip(*(field.split(counts) for field in found), strict=True)
    return [(s, type(found)(*part)) for s, part in zip(samples, parts, strict=True)]


def check_same(sample, found) -> None:
    expected = sample.pred_instances
    assert len(expected) == len(found.boxes)
    assert torch.equal(expected.labels, found.labels)
    torch.testing.assert_close(expected.bboxes, found.boxes, atol=1e-3, rtol=0)
    torch.testing.assert_close(expected.scores, found.scores)
    torch.testing.assert_close(expected.mask_scores, found.mask_scores)
    pasted = paste_dense(found.masks, found.boxes, sample.img_shape, 0.5)
    # Rounding may take a pixel at the threshold to the other side.
    assert (expected.masks != pasted).float().mean() < 1e-5


@pytest.mark.parametrize('classes', [1, 3])
def test_same_as_predict_on_a_batch_of_two_sizes(classes):
    model = talkative(tiny_model(classes)).eval()
    pairs = answers(model, picture(110, 160), picture(70, 90, seed=1))
    assert all(len(found.boxes) > 20 for _, found in pairs)
    for sample, found in pairs:
        check_same(sample, found)


def test_nothing_found_beside_something():
    """A picture without objects leaves no rows and shifts none of its neighbour's."""
    model = talkative(tiny_model(3)).eval()
    model.test_cfg.bbox.score_thr = 0.97
    images, samples = batch_of(model, picture(96, 96), picture(96, 96))
    images[0] = 0
    sizes = torch.tensor([[96, 96], [96, 96]])
    with torch.no_grad():
        found = ExportableCenterMask(model)(images, sizes)
        model.predict(images, samples, rescale=False)
    assert len(samples[0].pred_instances) == 0
    assert set(found.pictures.tolist()) == {1}
    check_same(samples[1], found)
    model.test_cfg.bbox.score_thr = 0.999999
    with torch.no_grad():
        empty = ExportableCenterMask(model)(images, sizes)
    assert [tuple(field.shape) for field in empty] == [
        *[(0,), (0, 4), (0,), (0,), (0,)],
        (0, 28, 28),
    ]


def test_class_agnostic_nms_and_no_iou_head():
    model = talkative(tiny_model(3, roi_head__mask_iou_head=None)).eval()
    model.test_cfg.bbox.nms.class_agnostic = True
    ((sample, found),) = answers(model, picture(96, 96))
    expected = sample.pred_instances
    torch.testing.assert_close(expected.bboxes, found.boxes)
    assert torch.equal(found.mask_scores, found.scores)


@pytest.mark.parametrize('limit', [4, 50, 1000])
def test_best_locations_are_the_candidates_of_the_stock_way(limit):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 8, 10, generator=generator) - 1
    centerness = torch.randn(2, 1, 8, 10, generator=generator)
    scores, labels, locations = best_locations(logits, centerness, 0.4, limit)
    assert scores.shape == (2, limit)
    for i in range(2):
        expected = select_candidates(logits[i], centerness[i], 0.4, limit)
        count = len(expected[0])
        assert 4 <= count < 240
        torch.testing.assert_close(scores[i, :count], expected[0])
        assert torch.equal(labels[i, :count], expected[1])
        assert torch.equal(locations[i, :count], expected[2])
        assert not scores[i, count:].any()


def test_clip_by_hand():
    boxes = torch.tensor([[-5.0, 2, 30, 40], [1, 1, 2, 2]])
    sizes = torch.tensor([[20, 25], [10, 10]])
    assert clip(boxes, sizes).tolist() == [[0, 2, 25, 20], [1, 1, 2, 2]]


def test_operators_keep_what_they_promise_to_torch_export():
    """torch's own checker: shapes without data, no hidden changes of an argument."""
    boxes = torch.tensor([[[0.0, 0, 8, 8], [0, 0, 8, 7], [20, 0, 30, 8]]])
    scores = torch.tensor([[0.5, 0.9, 0.0]])
    tests = ['test_schema', 'test_faketensor']
    torch.library.opcheck(operators.nms, (boxes, scores, 0.5, 2), test_utils=tests)
    rois = torch.tensor([[0.0, 0, 0, 8, 8], [0, 0, 0, 0, 0]])
    args = (torch.rand(1, 2, 6, 6), rois, 7, 0.5, 0)
    torch.library.opcheck(operators.roi_align, args, test_utils=tests)
    # The better of two that overlap; the third has no score.
    assert operators.nms(boxes, scores, 0.5, 2).tolist() == [[0, 1]]
    pooled = operators.roi_align(*args)
    assert pooled.shape == (2, 2, 7, 7)
    assert not pooled[1].any()


@pytest.mark.parametrize('stride, padding, dilation', [(1, 1, 1), (2, 1, 1), (1, 2, 2)])
@pytest.mark.parametrize('kind', [DeformConv2dPack, ModulatedDeformConv2dPack])
def test_grid_sampled_conv_is_mmcvs_deformable_conv(kind, stride, padding, dilation):
    torch.manual_seed(0)
    conv = kind(4, 6, 3, stride=stride, padding=padding, dilation=dilation, bias=False)
    nn.init.normal_(conv.conv_offset.weight, std=0.05)
    nn.init.normal_(conv.conv_offset.bias, std=2)  # some samples leave the map
    x = torch.rand(2, 4, 9, 11)
    with torch.no_grad():
        torch.testing.assert_close(GridSampledConv(conv)(x), conv(x), atol=1e-5, rtol=0)


def deformable_model() -> nn.Module:
    """A tiny CenterMask with DCNv2 whose offsets do something."""
    model = tiny_model(
        1,
        backbone__arch='V-19-slim',
        backbone__dcn=dict(type='DCNv2', deform_groups=1),
        backbone__stage_with_dcn=(False, False, False, True),
    )
    for module in model.modules():
        if isinstance(module, ModulatedDeformConv2dPack):
            nn.init.normal_(module.conv_offset.bias, std=0.5)
    return finder(model)


def test_deformable_convs_are_replaced_in_a_copy():
    model = deformable_model()
    count = sum(isinstance(m, ModulatedDeformConv2dPack) for m in model.modules())
    ((sample, found),) = answers(model, picture(96, 96))
    assert len(found.boxes) > 20
    check_same(sample, found)
    assert count == 3
    assert count == sum(
        isinstance(m, ModulatedDeformConv2dPack) for m in model.modules()
    )


REFUSED = {
    'min_bbox_size': (
        dict(test_cfg__bbox__min_bbox_size=4),
        'model.test_cfg.bbox.min_bbox_size=4',
    ),
    'soft_nms': (
        dict(test_cfg__bbox__nms__type='soft_nms'),
        "model.test_cfg.bbox.nms={'type': 'soft_nms', 'iou_threshold': 0.6}",
    ),
    'clip_border': (
        dict(bbox_head__bbox_coder__clip_border=True),
        'model.bbox_head.bbox_coder.clip_border=True',
    ),
    'divisor': (
        dict(data_preprocessor__pad_size_divisor=1),
        'model.data_preprocessor.pad_size_divisor=1 has to be a multiple of 32',
    ),
    'unaligned': (
        dict(roi_head__mask_roi_extractor__roi_layer__aligned=False),
        'model.roi_head.mask_roi_extractor.roi_layer=RoIAlign(',
    ),
}


@pytest.mark.parametrize('name', REFUSED)
def test_what_the_graph_does_not_do_is_refused_in_a_line(name):
    options, message = REFUSED[name]
    with pytest.raises(ExperimentError) as refusal:
        ExportableCenterMask(tiny_model(3, **options))
    assert message in str(refusal.value)
    assert '\n' not in str(refusal.value)


def test_other_detectors_are_refused():
    with pytest.raises(ExperimentError, match="model.type='Linear' cannot be exported"):
        ExportableCenterMask(nn.Linear(1, 1))


def test_a_prediction_of_its_own_is_refused():
    from mmdet_centermask.models import CenterMask

    class Special(CenterMask):
        def predict(self, *args, **kwargs):
            return super().predict(*args, **kwargs)

    cfg = Config(dict(tiny_config(3)))
    cfg.pop('type')
    with pytest.raises(ExperimentError, match="model.type='Special'"):
        ExportableCenterMask(Special(**cfg))
