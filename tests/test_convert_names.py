"""Every name of every kind of file finds its place, and nobody else's.

The oracles: names written by hand, names walked out by structure
(`convert_names.py`), the manifests of the 20 official files, the shipped configs.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from convert_names import (
    below,
    centermask1,
    centermask2,
    mobilenet,
    names_of_manifest,
    pyramid,
    resnet,
    tagged,
    timm_vovnet,
    vovnet,
)
from mmengine.config import Config

from mmdet_centermask.convert.draft import new_name, start
from mmdet_centermask.convert.fit import UNCOUNTED, fit
from mmdet_centermask.convert.report import ConversionError
from mmdet_centermask.convert.sources import SOURCES, find_source
from mmdet_centermask.convert.targets import (
    build,
    shapes_of,
    shipped_config,
    wanted_shapes,
)
from mmdet_centermask.models.vovnet import ARCHS

PARITY = Path(__file__).resolve().parents[2] / 'shared' / 'parity'
MANIFESTS = sorted(PARITY.glob('manifests/*.json'))


def assert_carried(tensors: dict, names: dict, state: dict) -> None:
    """Every tensor of the file stands under its new name."""
    for old, new in names.items():
        source, tensor = tensors[old], state[new]
        tag = source[(0,) * source.ndim]
        ends = (tensor[(0,) * tensor.ndim], tensor[(-1,) * tensor.ndim])
        assert ends == (tag, tag), f'{old} -> {new}'


def shapes_of_vovnet(arch: str) -> dict:
    return shapes_of(build(dict(type='VoVNet', arch=arch)))


def shapes_of_config(config: Path) -> dict:
    return shapes_of(build(Config.fromfile(config).model))


def counted_names(state: dict) -> set[str]:
    return {name for name in state if not name.endswith(UNCOUNTED)}


# The kind of file in brackets, a name there, and indented below it the name here.
BY_HAND = """
[centermask2]
backbone.bottom_up.stem.stem_1/conv.weight
    backbone.stem.0.conv.weight
backbone.bottom_up.stem.stem_3/norm.running_var
    backbone.stem.2.bn.running_var
backbone.bottom_up.stem.stem_2/pw_norm.bias
    backbone.stem.1.pointwise.bn.bias
backbone.bottom_up.stage3.OSA3_1.layers.0.OSA3_1_0/dw_conv3x3.weight
    backbone.stages.1.blocks.0.layers.0.depthwise.weight
backbone.bottom_up.stage3.OSA3_1.conv_reduction.OSA3_1_reduction_0/conv.weight
    backbone.stages.1.blocks.0.reduction.conv.weight
backbone.bottom_up.stage4.OSA4_9.layers.4.OSA4_9_4/conv_offset.bias
    backbone.stages.2.blocks.8.layers.4.conv.conv_offset.bias
backbone.bottom_up.stage5.OSA5_2.concat.OSA5_2_concat/conv.weight
    backbone.stages.3.blocks.1.concat.conv.weight
backbone.bottom_up.stage5.OSA5_2.ese.fc.bias
    backbone.stages.3.blocks.1.ese.fc.bias
backbone.bottom_up.res4.22.conv3.norm.weight
    backbone.layer3.22.bn3.weight
backbone.bottom_up.res2.0.shortcut.weight
    backbone.layer1.0.downsample.0.weight
backbone.bottom_up.features.1.conv.3.weight
    backbone.layer1.0.linear_conv.conv.weight
backbone.bottom_up.features.17.conv.7.bias
    backbone.layer7.0.linear_conv.bn.bias
backbone.fpn_lateral3.weight
    neck.lateral_convs.0.conv.weight
backbone.fpn_output5.bias
    neck.fpn_convs.2.conv.bias
backbone.top_block.p7.weight
    neck.fpn_convs.4.conv.weight
proposal_generator.fcos_head.cls_tower.10.weight
    bbox_head.cls_convs.3.gn.weight
proposal_generator.fcos_head.bbox_tower.6.bias
    bbox_head.reg_convs.2.conv.bias
proposal_generator.fcos_head.ctrness.bias
    bbox_head.conv_centerness.bias
proposal_generator.fcos_head.scales.4.scale
    bbox_head.scales.4.scale
roi_heads.mask_head.mask_fcn4.weight
    roi_head.mask_head.convs.3.conv.weight
roi_heads.mask_head.predictor.bias
    roi_head.mask_head.conv_logits.bias
roi_heads.maskiou_head.maskiou_fcn1.bias
    roi_head.mask_iou_head.convs.0.bias
roi_heads.maskiou_head.maskiou_fc2.bias
    roi_head.mask_iou_head.fcs.1.bias
roi_heads.maskiou_head.maskiou.bias
    roi_head.mask_iou_head.fc_mask_iou.bias
[panoptic-centermask2]
backbone.fpn_lateral2.weight
    neck.lateral_convs.0.conv.weight
backbone.top_block.p6.bias
    neck.fpn_convs.4.conv.bias
sem_seg_head.p5.4.norm.weight
    semantic_head.conv_upsample_layers.3.conv.2.gn.weight
sem_seg_head.predictor.weight
    semantic_head.conv_logits.weight
[centermask-v1]
backbone.body.stage3.OSA3_1.layers.0.OSA3_1_0/conv.offset.weight
    backbone.stages.1.blocks.0.layers.0.conv.conv_offset.weight
backbone.body.stage3.OSA3_1.layers.0.OSA3_1_0/conv.conv.weight
    backbone.stages.1.blocks.0.layers.0.conv.weight
backbone.body.stem.bn1.bias
    backbone.bn1.bias
backbone.body.layer2.3.conv2.weight
    backbone.layer2.3.conv2.weight
backbone.fpn.fpn_inner2.bias
    neck.lateral_convs.0.conv.bias
backbone.fpn.fpn_layer4.weight
    neck.fpn_convs.2.conv.weight
backbone.fpn.top_blocks.p7.bias
    neck.fpn_convs.4.conv.bias
rpn.head.centerness.bias
    bbox_head.conv_centerness.bias
roi_heads.mask.feature_extractor.spatialAtt.conv.weight
    roi_head.mask_head.spatial_attention.conv.weight
roi_heads.mask.predictor.conv5_mask.bias
    roi_head.mask_head.upsample.bias
roi_heads.mask.predictor.mask_fcn_logits.bias
    roi_head.mask_head.conv_logits.bias
roi_heads.maskiou.feature_extractor.maskiou_fc1.bias
    roi_head.mask_iou_head.fcs.0.bias
roi_heads.maskiou.predictor.maskiou.bias
    roi_head.mask_iou_head.fc_mask_iou.bias
[img_backbone]
img_backbone.stage5.OSA5_3.ese.fc.weight
    backbone.stages.3.blocks.2.ese.fc.weight
[timm]
stem.2.bn.weight
    backbone.stem.2.bn.weight
stages.2.blocks.1.conv_mid.4.bn.running_mean
    backbone.stages.2.blocks.1.layers.4.bn.running_mean
stages.2.blocks.1.conv_concat.conv.weight
    backbone.stages.2.blocks.1.concat.conv.weight
stages.2.blocks.1.attn.fc.bias
    backbone.stages.2.blocks.1.ese.fc.bias
[timm-depthwise]
stem.0.bn.bias
    backbone.stem.0.bn.bias
stem.2.bn.bias
    backbone.stem.2.pointwise.bn.bias
stages.0.blocks.0.conv_mid.1.bn.bias
    backbone.stages.0.blocks.0.layers.1.pointwise.bn.bias
stages.0.blocks.0.conv_reduction.bn.bias
    backbone.stages.0.blocks.0.reduction.bn.bias
"""


def by_hand() -> list[tuple[str, str, str]]:
    pairs, slug, old = [], '', ''
    for line in BY_HAND.strip().splitlines():
        if line.startswith('['):
            slug = line.strip('[]')
        elif line.startswith(' '):
            pairs.append((slug, old, line.strip()))
        else:
            old = line
    return pairs


@pytest.mark.parametrize(('slug', 'old', 'new'), by_hand())
def test_rename_by_hand(slug, old, new):
    (source,) = [source for source in SOURCES if source.slug == slug]
    assert new_name(old, source) == new


@pytest.mark.skipif(not MANIFESTS, reason='needs ../shared/parity')
@pytest.mark.parametrize('manifest', MANIFESTS, ids=lambda path: path.stem)
def test_official_config(manifest):
    shapes = json.loads(manifest.read_text())
    names = names_of_manifest(manifest.stem)
    assert set(names) == set(shapes)
    tensors = tagged(shapes)
    draft = start(tensors)
    report = fit(draft, wanted_shapes(draft))
    assert report.problems() == []
    assert report.matched == len(shapes)
    assert report.total == report.matched + len(report.filled)
    assert_carried(tensors, names, draft.state)


REPOSITORY = Path(__file__).resolve().parents[1]
# How a model is spread over GPUs is no other model.
CONFIGS = [
    path
    for path in sorted(REPOSITORY.glob('configs/*centermask*/*_coco.py'))
    if '_fsdp_' not in path.name
]
OFFICIAL = {
    'r50': lambda: resnet((3, 4, 6, 3)),
    'r101': lambda: resnet((3, 4, 23, 3)),
    'x101': lambda: resnet((3, 4, 23, 3)),
    'mv2': mobilenet,
    **{f'v{name[2:]}': lambda name=name: vovnet(name) for name in ARCHS},
    **{f'v{n}-dcn': lambda n=n: vovnet(f'V-{n}', dcn=True) for n in (39, 57, 99)},
}


@pytest.mark.parametrize('config', CONFIGS, ids=lambda path: path.stem)
def test_shipped_config(config):
    """Without ../shared: shapes from the config itself, names by structure."""
    family, arch = config.stem.split('_')[:2]
    panoptic, convs = family.startswith('panoptic'), 2 if family.endswith('lite') else 4
    names = centermask2(OFFICIAL[arch](), convs, panoptic)
    here = shapes_of_config(config)
    tensors = tagged({old: here[new] for old, new in names.items()})
    draft = start(tensors)
    assert wanted_shapes(draft) == here
    assert fit(draft, here).problems() == []
    assert_carried(tensors, names, draft.state)
    assert shipped_config(draft) == config.name


@pytest.mark.parametrize('dcn', ['', '-dcn'], ids=['plain', 'dcn'])
def test_centermask1(dcn):
    """81 rows in the mask branch, 80 in the class logits; backbone by FrozenBN."""
    names = centermask1(dcn=bool(dcn))
    folder = REPOSITORY / 'configs' / 'centermask'
    here = shapes_of_config(folder / f'centermask_v39{dcn}_fpn_ms-3x_coco.py')
    background = re.compile(r'roi_heads\.(mask\.predictor\.mask_fcn_log|maskiou\.pred)')
    shapes = {old: here[new] for old, new in names.items()}
    shapes.update({o: (81, *s[1:]) for o, s in shapes.items() if background.match(o)})
    tensors = tagged(shapes)
    draft = start(tensors)
    report = fit(draft, wanted_shapes(draft))
    assert report.problems() == []
    assert (report.matched, report.total) == (len(names), len(names))
    assert report.headline.startswith(f'V-39{dcn}, CenterMask v1, {len(names)} of')
    exact = {old: new for old, new in names.items() if 'running_var' not in old}
    assert_carried(tensors, exact, draft.state)


def test_fcos():
    """No mask branch in the file, none in the result."""
    names = centermask2(vovnet('V-39'))
    names = {old: new for old, new in names.items() if not old.startswith('roi_heads')}
    config = REPOSITORY / 'configs' / 'centermask' / 'centermask_v39_fpn_ms-3x_coco.py'
    here = shapes_of_config(config)
    tensors = tagged({old: here[new] for old, new in names.items()})
    draft = start(tensors)
    report = fit(draft, wanted_shapes(draft))
    assert report.problems() == []
    # 207 of V-39, 16 of the pyramid, 43 of the box head.
    assert report.headline == 'V-39, FCOS, 266 of 266 tensors'
    assert_carried(tensors, names, draft.state)
    assert shipped_config(draft) is None


def test_detectron2_detector():
    """Backbone and P2-P5 of a Mask R-CNN; what follows stays behind."""
    names = below('backbone.bottom_up.', 'backbone.', vovnet('V-57'))
    names |= below('backbone.', 'neck.', pyramid(2, 5))
    widths = [256, 512, 768, 1024]
    fpn = dict(type='FPN', in_channels=widths, out_channels=256, num_outs=5)
    here = shapes_of(build(dict(type='VoVNet', arch='V-57')), 'backbone.')
    here |= shapes_of(build(fpn), 'neck.')
    heads = ['proposal_generator.rpn_head.conv.bias', 'roi_heads.box_head.fc1.bias']
    tensors = tagged(
        {o: here[n] for o, n in names.items()} | dict.fromkeys(heads, (1,))
    )
    draft = start(tensors)
    report = fit(draft, wanted_shapes(draft))
    assert report.problems() == []
    # 303 of V-57, weight and bias of four laterals and four outputs.
    assert report.headline == 'V-57, detectron2 detector, 319 of 319 tensors'
    assert report.notes == [
        '2 tensors stay behind: proposal_generator (1), roi_heads (1)'
    ]
    assert_carried(tensors, names, draft.state)


@pytest.mark.parametrize('arch', ARCHS)
def test_timm(arch):
    own = shapes_of_vovnet(arch)
    names = below('', '', timm_vovnet(arch))
    head = {'head.fc.weight': (1000, 8), 'head.fc.bias': (1000,)}
    tensors = tagged({old: own[new] for old, new in names.items()} | head)
    draft = start(tensors)
    report = fit(draft, wanted_shapes(draft))
    assert report.problems() == []
    assert report.arch == arch
    # Gates that timm lacks: checkpoints of V-39, V-57, V-99; a weight and a bias each.
    lacking = {'V-39': 2, 'V-57': 5, 'V-99': 12}.get(arch, 0)
    assert len(report.filled) == 2 * lacking
    assert report.total == len(counted_names(own)) == report.matched + 2 * lacking
    assert_carried(tensors, {o: f'backbone.{n}' for o, n in names.items()}, draft.state)


@pytest.mark.parametrize(
    ('arch', 'prefix', 'others', 'source'),
    [
        ('V-19', 'backbone.bottom_up.', [], 'detectron2 backbone'),
        (
            'V-57',
            'backbone.bottom_up.',
            ['fcos3d_head.a', 'backbone.fpn_lateral3.b'],
            'detectron2 backbone',
        ),
        ('V-39', 'backbone.body.', ['rpn.head.a'], 'maskrcnn-benchmark backbone'),
        ('V-99', 'img_backbone.', ['pts_bbox_head.a', 'img_neck.b'], 'img_backbone'),
        ('V-19-slim', '', ['classifier.weight'], 'backbone'),
        ('V-19-dw', 'bottom_up.', [], 'backbone'),
        ('V-19-slim-dw', 'backbone.', [], 'backbone'),
    ],
)
def test_backbone_behind_any_prefix(arch, prefix, others, source):
    own = shapes_of_vovnet(arch)
    names = below(prefix, 'backbone.', vovnet(arch))
    shapes = {old: own[new.removeprefix('backbone.')] for old, new in names.items()}
    tensors = tagged(shapes | {name: (1,) for name in others})
    draft = start(tensors)
    report = fit(draft, wanted_shapes(draft))
    assert report.problems() == []
    assert report.arch == arch
    assert report.source == source
    assert report.matched == report.total == len(counted_names(own))
    frozen = source == 'maskrcnn-benchmark backbone'
    var = tensors[f'{prefix}stem.stem_1/norm.running_var'][0].item()
    wanted = var - 1e-5 if frozen else var
    carried = draft.state['backbone.stem.0.bn.running_var'].double()
    assert (carried - wanted).abs().max() < 1e-6
    exact = {o: n for o, n in names.items() if not (frozen and 'running_var' in o)}
    assert_carried(tensors, exact, draft.state)


@pytest.mark.parametrize(
    ('names', 'reason'),
    [
        (
            ['stem.stem_1/conv.weight', 'stage2.OSA2_1.layers.0.OSA2_1_0/conv.weight'],
            'V1',
        ),
        (['stem.0.conv.weight', 'stages.0.blocks.0.conv_mid.0.conv.weight'], 'timm'),
        (['backbone.stages.0.blocks.0.concat.conv.weight'], 'already'),
        (
            ['conv1.weight', 'bn1.bias', 'layer1.0.conv1.weight'],
            'bn1.bias, conv1.weight',
        ),
    ],
)
def test_refused_with_a_reason(names, reason):
    with pytest.raises(ConversionError, match=reason):
        find_source(names)


def test_two_names_for_one_tensor():
    names = below('', '', vovnet('V-19-slim'))
    tensors = tagged(dict.fromkeys(names, (1,)))
    tensors['bottom_up.stem.stem_1/conv.weight'] = torch.zeros(1)
    with pytest.raises(
        ConversionError, match=r'two tensors for backbone\.stem\.0\.conv'
    ):
        start(tensors)
