"""VoVNet and SAG-Mask as parts of stock detectors: built, one training step each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox2roi
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from tiny_centermask import CONFIGS, batch_of, picture

import mmdet_centermask  # noqa: F401

LEAVES = sorted((CONFIGS / 'vovnet').glob('*.py'))
# docs/design.md and the papers' tables; counted here, not taken from the model.
BACKBONE_PARAMETERS = {
    'v19-slim-dw': 1_384_752,
    'v39': 25_184_128,
    'v99': 69_523_520,
}
DETECTORS = {
    'cascade-mask-rcnn': ('CascadeRCNN', {'s0.loss_cls', 's2.loss_mask'}),
    'faster-rcnn': ('FasterRCNN', {'loss_rpn_cls', 'loss_bbox'}),
    'fcos': ('FCOS', {'loss_cls', 'loss_bbox', 'loss_centerness'}),
    'mask-rcnn': ('MaskRCNN', {'loss_rpn_cls', 'loss_bbox', 'loss_mask'}),
    'retinanet': ('RetinaNet', {'loss_cls', 'loss_bbox'}),
    'rtmdet-ins': ('RTMDet', {'loss_cls', 'loss_bbox', 'loss_mask'}),
}


def model_config(path: Path) -> ConfigDict:
    """The model of a leaf, without the file of ImageNet weights."""
    cfg = Config.fromfile(path).model
    assert cfg.backbone.init_cfg.checkpoint.startswith('checkpoints/vovnet')
    cfg.backbone.init_cfg = None
    return cfg


def build(cfg: ConfigDict) -> torch.nn.Module:
    init_default_scope('mmdet')
    torch.manual_seed(0)
    return MODELS.build(cfg)


def test_every_detector_comes_in_three_sizes():
    names = {path.name for path in LEAVES}
    for detector in DETECTORS:
        fpn = '' if detector == 'rtmdet-ins' else '_fpn'
        for size in BACKBONE_PARAMETERS:
            assert f'{detector}_{size}{fpn}_ms-3x_coco.py' in names


@pytest.mark.parametrize('path', LEAVES, ids=lambda p: p.stem)
def test_builds_and_takes_a_training_step(path):
    detector, size = path.stem.split('_')[:2]
    kind, loss_names = DETECTORS[detector]
    model = build(model_config(path)).train()
    assert type(model).__name__ == kind
    count = sum(p.numel() for p in model.backbone.parameters())
    assert count == BACKBONE_PARAMETERS[size]

    inputs, samples = batch_of(
        model,
        picture(64, 64, [(4, 4, 60, 60)]),
        picture(64, 48, [(4, 8, 36, 44), (20, 20, 48, 64)], seed=1),
        training=True,
    )
    losses = model.loss(inputs, samples)
    assert loss_names <= set(losses)
    value = sum_of(losses)
    assert torch.isfinite(value)
    assert value > 0
    deepest = model.backbone.stages[-1].blocks[-1].concat.conv.weight
    before = deepest.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    value.backward()
    optimizer.step()
    assert torch.isfinite(deepest).all()
    assert not torch.equal(deepest, before), 'no gradient reached the backbone'


def sum_of(losses: dict) -> torch.Tensor:
    """What training descends; RPN gives a list, one entry for each level."""
    values = [v for name, v in losses.items() if 'loss' in name]
    return sum(sum(v) if isinstance(v, list) else v for v in values)


@pytest.mark.parametrize('arch', ['V-19-slim', 'V-19-dw', 'V-19', 'V-57'])
def test_the_sizes_between_are_one_override(arch):
    slim = 'slim' in arch
    cfg = Config.fromfile(CONFIGS / 'vovnet' / 'faster-rcnn_v39_fpn_ms-3x_coco.py')
    cfg.merge_from_dict({'model.backbone.arch': arch, 'model.backbone.init_cfg': None})
    if slim:
        cfg.merge_from_dict({'model.neck.in_channels': [112, 256, 384, 512]})
    with torch.device('meta'):
        model = build(cfg.model)
    assert model.neck.in_channels == list(model.backbone.out_channels)


def sag_mask_rcnn() -> ConfigDict:
    cfg = model_config(CONFIGS / 'vovnet' / 'mask-rcnn_v39_fpn_sag-mask_ms-3x_coco.py')
    cfg.backbone.arch = 'V-19-slim-dw'
    cfg.neck.update(in_channels=[112, 256, 384, 512], out_channels=32)
    cfg.rpn_head.update(in_channels=32, feat_channels=32)
    cfg.roi_head.bbox_roi_extractor.out_channels = 32
    cfg.roi_head.mask_roi_extractor.out_channels = 32
    cfg.roi_head.bbox_head.update(in_channels=32, fc_out_channels=32)
    cfg.roi_head.mask_head.update(in_channels=32, conv_out_channels=32)
    return cfg


def test_sag_mask_in_a_stock_mask_rcnn():
    """The parts are in, their weights learn, masks come out."""
    model = build(sag_mask_rcnn())
    assert type(model.roi_head).__name__ == 'StandardRoIHead'
    attention = model.roi_head.mask_head.spatial_attention.conv.weight
    inputs, samples = batch_of(model, picture(64, 64, [(4, 4, 60, 60)]), training=True)
    sum_of(model.train().loss(inputs, samples)).backward()
    assert attention.grad.abs().sum() > 0
    with torch.no_grad():
        (sample,) = model.eval().predict(*batch_of(model, picture(64, 64)))
    masks = sample.pred_instances.masks
    assert masks.shape == (len(sample.pred_instances), 64, 64)


def test_the_level_rule_in_a_stock_mask_rcnn():
    """Equation 2 with k_max = 5: a level finer for each halving of the area."""
    roi_head = build(sag_mask_rcnn()).roi_head.eval()
    # One value for each level, so that a pooled RoI tells where it comes from.
    levels = [torch.full((1, 32, 128 // s, 128 // s), float(s)) for s in (4, 8, 16, 32)]
    side = 128 / torch.tensor([1.0, 1.9, 2.1, 3.9, 4.1, 7.9, 8.1]).sqrt()
    boxes = torch.stack([side * 0, side * 0, side, side], dim=1)
    seen = []
    handle = roi_head.mask_head.register_forward_pre_hook(
        lambda module, args: seen.append(args[0])
    )
    roi_head._mask_forward(levels, bbox2roi([boxes]))
    handle.remove()
    assert seen[0][:, 0, 7, 7].tolist() == [32, 32, 16, 16, 8, 8, 4]
