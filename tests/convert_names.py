"""What every project calls the parts of the network, spelt out by structure.

The converter renames with patterns. Here the same names are written the other way
round: walk through the network and say how each project calls what comes by.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from mmdet_centermask.models.vovnet import ARCHS

NORM = ('weight', 'bias', 'running_mean', 'running_var')
CONV_BIAS = ('weight', 'bias')

# Each walk yields (name in the file, name here), prefixes left out.
Names = Iterator[tuple[str, str]]


def leaves(file: str, here: str, names=CONV_BIAS) -> Names:
    for leaf in names:
        yield f'{file}.{leaf}', f'{here}.{leaf}'


def conv_norm(file_conv: str, file_norm: str, here: str) -> Names:
    yield f'{file_conv}.weight', f'{here}.conv.weight'
    yield from leaves(file_norm, f'{here}.bn', NORM)


def layer_of_vovnet(file: str, here: str, depthwise: bool) -> Names:
    if depthwise:
        yield f'{file}/dw_conv3x3.weight', f'{here}.depthwise.weight'
        yield from conv_norm(
            f'{file}/pw_conv1x1', f'{file}/pw_norm', f'{here}.pointwise'
        )
    else:
        yield from conv_norm(f'{file}/conv', f'{file}/norm', here)


def vovnet(arch: str, dcn: bool = False, offset: str = '/conv_offset') -> Names:
    spec = ARCHS[arch]
    for n in range(3):
        depthwise = spec.depthwise and n > 0
        yield from layer_of_vovnet(f'stem.stem_{n + 1}', f'stem.{n}', depthwise)
    width = spec.stem[-1]
    for stage in range(4):
        for block in range(spec.blocks[stage]):
            tag = f'OSA{stage + 2}_{block + 1}'
            file = f'stage{stage + 2}.{tag}'
            here = f'stages.{stage}.blocks.{block}'
            for i in range(spec.layers_per_block):
                layer = f'{file}.layers.{i}.{tag}_{i}', f'{here}.layers.{i}'
                yield from layer_of_vovnet(*layer, spec.depthwise)
                if dcn and stage > 0:
                    yield from leaves(layer[0] + offset, f'{layer[1]}.conv.conv_offset')
            if spec.depthwise and width != spec.conv_channels[stage]:
                reduction = f'{file}.conv_reduction.{tag}_reduction_0'
                yield from conv_norm(
                    f'{reduction}/conv', f'{reduction}/norm', f'{here}.reduction'
                )
            concat = f'{file}.concat.{tag}_concat'
            yield from conv_norm(f'{concat}/conv', f'{concat}/norm', f'{here}.concat')
            yield from leaves(f'{file}.ese.fc', f'{here}.ese.fc')
            width = spec.out_channels[stage]


def timm_vovnet(arch: str) -> Names:
    spec = ARCHS[arch]

    def layer(file: str, here: str, depthwise: bool) -> Names:
        if depthwise:
            yield f'{file}.conv_dw.weight', f'{here}.depthwise.weight'
            yield from conv_norm(f'{file}.conv_pw', f'{file}.bn', f'{here}.pointwise')
        else:
            yield from conv_norm(f'{file}.conv', f'{file}.bn', here)

    for n in range(3):
        yield from layer(f'stem.{n}', f'stem.{n}', spec.depthwise and n > 0)
    width = spec.stem[-1]
    for stage in range(4):
        for block in range(spec.blocks[stage]):
            here = f'stages.{stage}.blocks.{block}'
            for i in range(spec.layers_per_block):
                yield from layer(
                    f'{here}.conv_mid.{i}', f'{here}.layers.{i}', spec.depthwise
                )
            parts = [('conv_concat', 'concat')]
            if spec.depthwise and width != spec.conv_channels[stage]:
                parts.append(('conv_reduction', 'reduction'))
            for file, mine in parts:
                conv = f'{here}.{file}'
                yield from conv_norm(f'{conv}.conv', f'{conv}.bn', f'{here}.{mine}')
            if block == spec.blocks[stage] - 1:
                yield from leaves(f'{here}.attn.fc', f'{here}.ese.fc')
            width = spec.out_channels[stage]


def resnet(blocks: tuple[int, int, int, int]) -> Names:
    yield 'stem.conv1.weight', 'conv1.weight'
    yield from leaves('stem.conv1.norm', 'bn1', NORM)
    for stage, count in enumerate(blocks):
        for block in range(count):
            file, here = f'res{stage + 2}.{block}', f'layer{stage + 1}.{block}'
            for n in (1, 2, 3):
                yield f'{file}.conv{n}.weight', f'{here}.conv{n}.weight'
                yield from leaves(f'{file}.conv{n}.norm', f'{here}.bn{n}', NORM)
            if block == 0:
                yield f'{file}.shortcut.weight', f'{here}.downsample.0.weight'
                yield from leaves(f'{file}.shortcut.norm', f'{here}.downsample.1', NORM)


def mobilenet() -> Names:
    yield from conv_norm('features.0.0', 'features.0.1', 'conv1')
    n = 1
    for layer, count in enumerate((1, 2, 3, 4, 3, 3, 1), 1):
        for block in range(count):
            convs = ['expand_conv', 'depthwise_conv', 'linear_conv'][n == 1 :]
            for k, conv in enumerate(convs):
                file = f'features.{n}.conv'
                here = f'layer{layer}.{block}.{conv}'
                yield from conv_norm(f'{file}.{3 * k}', f'{file}.{3 * k + 1}', here)
            n += 1


def pyramid(first: int, last: int) -> Names:
    for level in range(first, last + 1):
        n = level - first
        if level <= 5:
            yield from leaves(f'fpn_lateral{level}', f'lateral_convs.{n}.conv')
            yield from leaves(f'fpn_output{level}', f'fpn_convs.{n}.conv')
        else:
            yield from leaves(f'top_block.p{level}', f'fpn_convs.{n}.conv')


def fcos(convs: int, centerness: str = 'ctrness') -> Names:
    for tower, mine in (('cls_tower', 'cls_convs'), ('bbox_tower', 'reg_convs')):
        for i in range(convs):
            yield from leaves(f'{tower}.{3 * i}', f'{mine}.{i}.conv')
            yield from leaves(f'{tower}.{3 * i + 1}', f'{mine}.{i}.gn')
    yield from leaves('cls_logits', 'conv_cls')
    yield from leaves('bbox_pred', 'conv_reg')
    yield from leaves(centerness, 'conv_centerness')
    for level in range(5):
        yield f'scales.{level}.scale', f'scales.{level}.scale'


def mask_head(convs: int) -> Names:
    for i in range(convs):
        yield from leaves(f'mask_fcn{i + 1}', f'convs.{i}.conv')
    yield 'spatialAtt.conv.weight', 'spatial_attention.conv.weight'
    yield from leaves('deconv', 'upsample')
    yield from leaves('predictor', 'conv_logits')


def mask_iou_head(convs: int) -> Names:
    for i in range(convs):
        yield from leaves(f'maskiou_fcn{i + 1}', f'convs.{i}')
    for i in range(2):
        yield from leaves(f'maskiou_fc{i + 1}', f'fcs.{i}')
    yield from leaves('maskiou', 'fc_mask_iou')


def semantic_head() -> Names:
    for level, convs in ((2, 1), (3, 1), (4, 2), (5, 3)):
        for i in range(convs):
            file = f'p{level}.{2 * i}'
            here = f'conv_upsample_layers.{level - 2}.conv.{i}'
            yield f'{file}.weight', f'{here}.conv.weight'
            yield from leaves(f'{file}.norm', f'{here}.gn')
    yield from leaves('predictor', 'conv_logits')


def below(file: str, here: str, names: Names) -> dict[str, str]:
    return {file + old: here + new for old, new in names}


def centermask2(backbone: Names, convs: int = 4, panoptic: bool = False) -> dict:
    return {
        **below('backbone.bottom_up.', 'backbone.', backbone),
        **below('backbone.', 'neck.', pyramid(2 if panoptic else 3, 7)),
        **below('proposal_generator.fcos_head.', 'bbox_head.', fcos(convs)),
        **below('roi_heads.mask_head.', 'roi_head.mask_head.', mask_head(convs)),
        **below(
            'roi_heads.maskiou_head.', 'roi_head.mask_iou_head.', mask_iou_head(convs)
        ),
        **(
            below('sem_seg_head.', 'semantic_head.', semantic_head())
            if panoptic
            else {}
        ),
    }


def centermask1(arch: str = 'V-39', dcn: bool = False) -> dict:
    names = {
        **below('backbone.body.', 'backbone.', vovnet(arch, dcn, '/conv.offset')),
        **below('rpn.head.', 'bbox_head.', fcos(4, 'centerness')),
    }
    if dcn:
        names = {
            old.replace('/conv.weight', '/conv.conv.weight')
            if old.split('.')[2] != 'stage2' and '.layers.' in old
            else old: new
            for old, new in names.items()
        }
    for i in range(3):
        fpn = 'backbone.fpn.'
        names |= leaves(f'{fpn}fpn_inner{i + 2}', f'neck.lateral_convs.{i}.conv')
        names |= leaves(f'{fpn}fpn_layer{i + 2}', f'neck.fpn_convs.{i}.conv')
    for i in (6, 7):
        names |= leaves(f'backbone.fpn.top_blocks.p{i}', f'neck.fpn_convs.{i - 3}.conv')
    mask, here = 'roi_heads.mask.', 'roi_head.mask_head.'
    for old, new in mask_head(4):
        old = old.replace('deconv', 'conv5_mask').replace(
            'predictor', 'mask_fcn_logits'
        )
        side = (
            'predictor'
            if old.startswith(('conv5', 'mask_fcn_l'))
            else 'feature_extractor'
        )
        names[f'{mask}{side}.{old}'] = here + new
    for old, new in mask_iou_head(4):
        side = 'predictor' if old.startswith('maskiou.') else 'feature_extractor'
        names[f'roi_heads.maskiou.{side}.{old}'] = f'roi_head.mask_iou_head.{new}'
    return names


def names_of_manifest(stem: str) -> dict[str, str]:
    """What the parts of an official config are called, there and here."""
    arch = stem.split('_FPN')[0].removeprefix('panoptic_').removeprefix('centermask_')
    arch = arch.removeprefix('lite_').replace('_eSE', '')
    backbones = {
        'R_50': lambda: resnet((3, 4, 6, 3)),
        'R_101': lambda: resnet((3, 4, 23, 3)),
        'X_101': lambda: resnet((3, 4, 23, 3)),
        'Mv2': mobilenet,
    }
    dcn = arch.endswith('_dcn')
    vov = arch.removesuffix('_dcn').replace('_', '-')
    backbone = backbones[arch]() if arch in backbones else vovnet(vov, dcn)
    convs = 2 if '_lite_' in stem else 4
    return centermask2(backbone, convs, panoptic=stem.startswith('panoptic'))


def tagged(shapes: dict) -> dict[str, torch.Tensor]:
    """One number for each tensor, all over it: next to nothing in memory and file."""
    return {
        name: torch.tensor(float(tag)).expand(tuple(shape))
        for tag, (name, shape) in enumerate(shapes.items(), 1)
    }
