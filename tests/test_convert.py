"""A detector from file to file: what is written and said, and when nothing is."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from convert_files import backbone_state, convert, load_tool, random_state
from convert_names import centermask2, timm_vovnet, vovnet
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmdet_centermask import __version__
from mmdet_centermask.convert import ConversionError, convert_checkpoint
from mmdet_centermask.convert.targets import build, shapes_of
from mmdet_centermask.models.vovnet import VoVNet

STEM = 'backbone.bottom_up.stem.stem_1/conv.weight'
LITE = 'configs/centermask_lite/centermask-lite_v19-slim-dw_fpn_ms-4x_coco.py'


@pytest.fixture(scope='session')
def lite_names() -> dict[str, str]:
    return centermask2(vovnet('V-19-slim-dw'), 2)


@pytest.fixture(scope='session')
def lite_config(repository) -> Config:
    return Config.fromfile(repository / LITE)


@pytest.fixture(scope='session')
def lite(lite_names, lite_config) -> dict[str, torch.Tensor]:
    """What an official CenterMask-Lite V-19-slim-dw file holds, random numbers."""
    here = shapes_of(build(lite_config.model))
    # The reference keeps a scale as (1,), mmcv as ().
    return random_state({old: here[new] or (1,) for old, new in lite_names.items()})


def test_detector(tmp_path, lite, lite_names, lite_config):
    report, result = convert(tmp_path, lite)
    assert report.headline == 'V-19-slim-dw, CenterMask2, 194 of 194 tensors'
    assert report.problems() == []
    for old, new in lite_names.items():
        value = lite[old].reshape(()) if 'scales' in old else lite[old]
        assert torch.equal(result['state_dict'][new], value), f'{old} -> {new}'
    lite_config = lite_config.copy()
    lite_config.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(lite_config.model)
    model.load_state_dict(result['state_dict'], strict=True)


def test_meta(lite, tmp_path):
    report, result = convert(tmp_path, lite)
    meta = result['meta']
    assert (
        meta['sha256']
        == hashlib.sha256((tmp_path / 'src.pth').read_bytes()).hexdigest()
    )
    assert meta['source'] == 'CenterMask2' and meta['source_file'] == 'src.pth'
    assert meta['arch'] == 'V-19-slim-dw'
    assert meta['mmdet_centermask'] == __version__
    names = meta['dataset_meta']['classes']
    assert len(names) == meta['num_classes'] == 80
    assert (names[0], names[2], names[79]) == ('person', 'car', 'toothbrush')
    assert meta['config'] == Path(LITE).name
    assert meta['notes'] == report.notes == [f'config: {Path(LITE).name}']


@pytest.mark.parametrize(
    ('change', 'problem'),
    [
        (lambda s: s.pop(STEM), 'missing     backbone.stem.0.conv.weight'),
        (
            lambda s: s.update(
                {'proposal_generator.fcos_head.share_tower.0.bias': s[STEM]}
            ),
            'unexpected  proposal_generator.fcos_head.share_tower.0.bias',
        ),
        (
            lambda s: s.update({'ema.decay': torch.tensor(0.5)}),
            'unexpected  ema.decay',
        ),
        (
            lambda s: s.update({STEM: torch.zeros(64, 4, 3, 3)}),
            'misshapen   backbone.stem.0.conv.weight: [64, 4, 3, 3] in the file, '
            '[64, 3, 3, 3] wanted',
        ),
    ],
    ids=['missing', 'unexpected', 'foreign', 'misshapen'],
)
def test_nothing_is_written_unless_all_fits(
    lite, change, problem, tmp_path, repository, capsys
):
    state = dict(lite)
    change(state)
    report, _ = convert(tmp_path, state)
    assert report.problems() == [problem]
    assert report.matched == (194 if 'unexpected' in problem else 193)
    assert report.total == 194
    dst = tmp_path / 'precious.pth'
    dst.write_text('precious')
    assert load_tool(repository).main([str(tmp_path / 'src.pth'), str(dst)]) == 1
    printed = capsys.readouterr().out
    assert f'{report.headline}\n  {problem}\n' in printed
    assert printed.endswith('nothing written: not all fits\n')
    assert dst.read_text() == 'precious'


def test_keep_classes(tmp_path, lite):
    report, result = convert(tmp_path, lite, classes=[7, 0, 2])
    state, meta = result['state_dict'], result['meta']
    assert report.headline == 'V-19-slim-dw, CenterMask2, 194 of 194 tensors'
    for new, old in (
        ('bbox_head.conv_cls', 'proposal_generator.fcos_head.cls_logits'),
        ('roi_head.mask_head.conv_logits', 'roi_heads.mask_head.predictor'),
        ('roi_head.mask_iou_head.fc_mask_iou', 'roi_heads.maskiou_head.maskiou'),
    ):
        for leaf in ('weight', 'bias'):
            rows = lite[f'{old}.{leaf}']
            wanted = torch.stack([rows[7], rows[0], rows[2]])
            assert torch.equal(state[f'{new}.{leaf}'], wanted)
    assert meta['dataset_meta']['classes'] == ('truck', 'person', 'car')
    assert meta['kept_classes'] == [7, 0, 2] and meta['num_classes'] == 3


def test_drop_class_rows(tmp_path, lite):
    report, result = convert(tmp_path, lite, num_classes=4)
    assert report.headline == (
        'V-19-slim-dw, CenterMask2, 188 of 194 tensors, 6 left out'
    )
    assert sorted(report.left_out) == [
        'bbox_head.conv_cls.bias',
        'bbox_head.conv_cls.weight',
        'roi_head.mask_head.conv_logits.bias',
        'roi_head.mask_head.conv_logits.weight',
        'roi_head.mask_iou_head.fc_mask_iou.bias',
        'roi_head.mask_iou_head.fc_mask_iou.weight',
    ]
    assert not set(report.left_out) & set(result['state_dict'])
    assert result['meta']['num_classes'] == 4
    assert 'dataset_meta' not in result['meta']


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(classes=[0, 80]), r'classes=\[80\]: the file has classes 0 to 79'),
        (dict(classes=[-1]), r'classes=\[-1\]'),
        (dict(classes=[1, 1]), 'each once'),
        (dict(classes=[]), 'must name classes'),
        (dict(num_classes=0), 'num_classes=0 must be at least 1'),
        (dict(classes=[1], num_classes=1), 'exclude each other'),
        (dict(classes=[1], backbone_only=True), 'no class rows'),
        (dict(fold_rgb=True), 'CenterMask2 sees BGR pixels already'),
        (dict(source='caffe'), "source 'caffe' is unknown, choose one of panoptic-"),
        (dict(config='no/such.py'), 'no config at'),
    ],
)
def test_options_that_do_not_go(tmp_path, lite, options, message):
    with pytest.raises(ConversionError, match=message):
        convert(tmp_path, lite, **options)


def test_config_of_ones_own(lite, lite_config, tmp_path):
    """A config overrides what the paper has: here three convs in the towers."""
    config = tmp_path / 'mine.py'
    lite_config = lite_config.copy()
    lite_config.model.bbox_head.stacked_convs = 3
    lite_config.dump(config)
    report, _ = convert(tmp_path, lite, config=config)
    assert report.problems() == [
        f'missing     bbox_head.{side}_convs.2.{part}.{leaf}'
        for side in ('cls', 'reg')
        for part in ('conv', 'gn')
        for leaf in ('weight', 'bias')
    ]


def test_backbone_of_a_detector(tmp_path, lite):
    report, result = convert(tmp_path, lite, backbone_only=True)
    assert report.headline == 'V-19-slim-dw, CenterMask2, 132 of 132 tensors'
    state = result['state_dict']
    VoVNet('V-19-slim-dw').load_state_dict(state, strict=True)
    assert torch.equal(state['stem.0.conv.weight'], lite[STEM])


def test_pixels_that_the_file_states(tmp_path, lite):
    usual = {
        'pixel_mean': torch.tensor([103.53, 116.28, 123.675]).reshape(3, 1, 1),
        'pixel_std': torch.ones(3, 1, 1),
    }
    report, result = convert(tmp_path, lite | usual)
    assert report.matched == report.total == 194
    assert report.notes == [f'config: {Path(LITE).name}']
    report, result = convert(
        tmp_path, lite | usual | {'pixel_std': torch.full((3, 1, 1), 11.578)}
    )
    assert result['meta']['pixels']['std'] == (11.578, 11.578, 11.578)
    assert report.notes[0] == (
        'data_preprocessor: mean=[103.53, 116.28, 123.675], '
        'std=[11.578, 11.578, 11.578], bgr_to_rgb=False'
    )


def test_source_is_never_overwritten(tmp_path):
    src = tmp_path / 'src.pth'
    torch.save(backbone_state(timm_vovnet('V-19-slim'), 'V-19-slim'), src)
    before = src.read_bytes()
    for dst in (src, tmp_path / '.' / 'src.pth', tmp_path):
        with pytest.raises(ConversionError, match='no place to write'):
            convert_checkpoint(src, dst)
    assert src.read_bytes() == before


def test_interrupted_write_leaves_what_was_there(tmp_path, monkeypatch):
    src, dst = tmp_path / 'src.pth', tmp_path / 'dst.pth'
    torch.save(backbone_state(timm_vovnet('V-19-slim'), 'V-19-slim'), src)
    dst.write_text('precious')

    def fail(content, path):
        Path(path).write_bytes(b'half of it')
        raise OSError('No space left on device')

    monkeypatch.setattr(torch, 'save', fail)
    with pytest.raises(OSError, match='No space'):
        convert_checkpoint(src, dst)
    assert dst.read_text() == 'precious'
    assert sorted(p.name for p in tmp_path.iterdir()) == ['dst.pth', 'src.pth']


def test_the_old_file_is_replaced_not_rewritten(tmp_path):
    """Who has the old one open goes on reading it."""
    src, dst = tmp_path / 'src.pth', tmp_path / 'dst.pth'
    torch.save(backbone_state(timm_vovnet('V-19-slim'), 'V-19-slim'), src)
    dst.write_text('precious')
    with dst.open() as reader:
        assert convert_checkpoint(src, dst).written == dst
        assert reader.read() == 'precious'
    assert len(torch.load(dst, weights_only=True)['state_dict']) == 103 + 19
