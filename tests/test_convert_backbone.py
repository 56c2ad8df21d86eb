"""Backbones, timm and CenterMask v1 from file to file."""

from __future__ import annotations

import pickle

import pytest
import torch
from convert_files import backbone_state, convert, random_state
from convert_names import centermask1, centermask2, tagged, timm_vovnet, vovnet
from mmengine.config import Config

from mmdet_centermask.convert import ConversionError, convert_checkpoint
from mmdet_centermask.convert.draft import start
from mmdet_centermask.convert.targets import build, shapes_of
from mmdet_centermask.models.vovnet import VoVNet

STEM = 'backbone.bottom_up.stem.stem_1/conv.weight'


def test_backbone_loads_through_init_cfg(tmp_path):
    """An ImageNet file, flat, becomes what `Pretrained` takes whole."""
    state = backbone_state(
        vovnet('V-19-slim-dw'), 'V-19-slim-dw', 'backbone.bottom_up.'
    )
    report, _ = convert(tmp_path, state | {'fc.weight': torch.zeros(2, 2)})
    assert report.headline == 'V-19-slim-dw, detectron2 backbone, 132 of 132 tensors'
    assert report.notes[0] == '1 tensors stay behind: fc (1)'
    init_cfg = dict(type='Pretrained', checkpoint=str(report.written))
    model = VoVNet('V-19-slim-dw', init_cfg=init_cfg)
    model.init_weights()
    assert torch.equal(model.stem[0].conv.weight, state[STEM])
    gate = 'backbone.bottom_up.stage5.OSA5_1.ese.fc.bias'
    assert torch.equal(model.stages[3].blocks[0].ese.fc.bias, state[gate])


def test_pickle_needs_trust(tmp_path):
    state = backbone_state(
        vovnet('V-19-slim-dw'), 'V-19-slim-dw', 'backbone.bottom_up.'
    )
    src, dst = tmp_path / 'zoo.pkl', tmp_path / 'dst.pth'
    src.write_bytes(pickle.dumps({'model': {n: t.numpy() for n, t in state.items()}}))
    with pytest.raises(ConversionError, match='--trust'):
        convert_checkpoint(src, dst)
    assert not dst.exists()
    assert convert_checkpoint(src, dst, trust=True).matched == 132


def test_centermask1(tmp_path, repository):
    """eps taken off the variance, background off the mask branch, what it needs."""
    names = centermask1('V-39')
    config = 'configs/centermask/centermask_v39_fpn_ms-3x_coco.py'
    here = shapes_of(build(Config.fromfile(repository / config).model))
    shapes = {old: here[new] or (1,) for old, new in names.items()}
    predictors = (
        'roi_heads.mask.predictor.mask_fcn_logits.bias',
        'roi_heads.mask.predictor.mask_fcn_logits.weight',
        'roi_heads.maskiou.predictor.maskiou.bias',
        'roi_heads.maskiou.predictor.maskiou.weight',
    )
    shapes |= {name: (81, *shapes[name][1:]) for name in predictors}
    var = 'backbone.body.stage4.OSA4_2.layers.3.OSA4_2_3/norm.running_var'
    some = {name: shapes[name] for name in (var, *predictors)}
    file = tagged(shapes) | random_state(some)
    report, result = convert(tmp_path, {f'module.{n}': t for n, t in file.items()})
    state = result['state_dict']
    assert report.headline == 'V-39, CenterMask v1, 293 of 293 tensors'
    for name in predictors:
        assert torch.equal(state[names[name]], file[name][1:])
    logits = 'rpn.head.cls_logits.weight'
    assert torch.equal(state['bbox_head.conv_cls.weight'], file[logits])
    wanted = (file[var].double() - 1e-5).float()
    assert (state[names[var]] - wanted).abs().max() < 1e-7
    said = '\n'.join(report.notes)
    assert 'norm_on_bbox=False' in said
    assert 'mean=[102.9801, 115.9465, 122.7717], std=[1.0, 1.0, 1.0]' in said


def test_things_of_the_semantic_head():
    """detectron2 counts `things` first, MMDetection last."""
    names = centermask2(vovnet('V-19-slim'), panoptic=True)
    own = shapes_of(build(dict(type='VoVNet', arch='V-19-slim')), 'backbone.')
    tensors = {o: torch.zeros(own.get(n, (1,))) for o, n in names.items()}
    tensors['sem_seg_head.predictor.bias'] = torch.arange(54.0)
    state = start(tensors).state
    assert state['semantic_head.conv_logits.bias'].tolist() == [*range(1, 54), 0]


def test_timm_gates_and_folding(tmp_path):
    """V-39 out of timm: the gates it lacks are open, the first conv sees BGR."""
    file = backbone_state(timm_vovnet('V-39'), 'V-39')
    report, result = convert(tmp_path, file, fold_rgb=True)
    assert report.headline == 'V-39, timm, 203 of 207 tensors, 4 filled'
    state = result['state_dict']
    # checkpoints.md: OSA4_1 and OSA5_1 have no gate in timm.
    for gate in ('stages.2.blocks.0.ese.fc', 'stages.3.blocks.0.ese.fc'):
        assert not state[f'{gate}.weight'].any()
        assert (state[f'{gate}.bias'] == 3).all()
    conv = file['stem.0.conv.weight']
    blue = conv[:, 2] / 57.375
    torch.testing.assert_close(state['stem.0.conv.weight'][:, 0], blue)
    assert result['meta']['pixels'] == dict(
        mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0), bgr_to_rgb=False
    )
    assert set(state) == set(shapes_of(build(dict(type='VoVNet', arch='V-39'))))


def test_timm_without_folding_says_which_pixels(tmp_path):
    report, _ = convert(tmp_path, backbone_state(timm_vovnet('V-19-dw'), 'V-19-dw'))
    assert report.headline == 'V-19-dw, timm depthwise, 137 of 137 tensors'
    assert report.notes[0] == (
        'data_preprocessor: mean=[123.675, 116.28, 103.53], '
        'std=[58.395, 57.12, 57.375], bgr_to_rgb=True'
    )


def test_timm_57b_is_not_folded(tmp_path):
    with pytest.raises(ConversionError, match='cannot be folded exactly'):
        convert(tmp_path, backbone_state(timm_vovnet('V-57'), 'V-57'), fold_rgb=True)


def test_damaged_gate_of_timm_is_missing_not_filled(tmp_path):
    file = backbone_state(timm_vovnet('V-39'), 'V-39')
    del file['stages.2.blocks.1.attn.fc.bias']
    report, _ = convert(tmp_path, file)
    assert report.problems() == ['missing     backbone.stages.2.blocks.1.ese.fc.bias']


def test_counters_of_batch_norm(tmp_path):
    """Kept where the file has them, zero where it does not; never a misfit."""
    file = backbone_state(timm_vovnet('V-19-slim'), 'V-19-slim')
    file['stem.0.bn.num_batches_tracked'] = torch.tensor(1 << 33)
    report, result = convert(tmp_path, file)
    assert report.headline == 'V-19-slim, timm, 103 of 103 tensors'
    counters = {
        n: t.item() for n, t in result['state_dict'].items() if n.endswith('tracked')
    }
    assert counters.pop('stem.0.bn.num_batches_tracked') == 1 << 33
    assert len(counters) == 18 and set(counters.values()) == {0}


def test_not_a_known_backbone(tmp_path):
    state = backbone_state(vovnet('V-19-slim'), 'V-19-slim')
    with pytest.raises(ConversionError, match='the backbone is none of V-19-slim-dw, '):
        convert(tmp_path, {n: t[..., :1] for n, t in state.items()})
