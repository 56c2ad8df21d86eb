"""Rules that turn a parameter's name in a file into its name in the network.

A rule is a pattern and a template. The rules of a part run one after the other on
the same name, each wherever its pattern occurs. In a template, `{S}` is the group
`S` of the pattern; `{S-2}` and `{k/3}` are whole numbers computed from it.

Shorthand of the groups: `S` stage, `B` block, `i` layer (all as the file counts
them), `N` pyramid level, `k` position in a sequence of modules, `n` other numbers.
"""

from __future__ import annotations

import functools
import re

Rule = tuple[str, str]
Rules = tuple[Rule, ...]

FIELD = re.compile(r'\{(\w+)(?:([-/])(\d+))?\}')

# The slash only occurs in VoVNet's names, and only the last rules take it away.
VOVNET: Rules = (
    (r'/dw_conv3x3\.', '/depthwise.'),
    (r'/pw_conv1x1\.', '/pointwise.conv.'),
    (r'/pw_norm\.', '/pointwise.bn.'),
    (r'/norm\.', '/bn.'),
    (r'/conv_offset\.', '/conv.conv_offset.'),
    (r'/conv\.offset\.', '/conv.conv_offset.'),  # CenterMask v1
    (r'/conv\.conv\.', '/conv.'),  # CenterMask v1, beside an offset
    (r'^stem\.stem_(?P<n>\d)/', 'stem.{n-1}.'),
    (r'^stage(?P<S>\d)\.OSA\d_(?P<B>\d+)\.', 'stages.{S-2}.blocks.{B-1}.'),
    (r'\.layers\.(?P<i>\d+)\.OSA\d_\d+_\d+/', '.layers.{i}.'),
    (r'\.conv_reduction\.OSA\d_\d+_reduction_0/', '.reduction.'),
    (r'\.concat\.OSA\d_\d+_concat/', '.concat.'),
)

# detectron2's names, then those of maskrcnn-benchmark.
RESNET: Rules = (
    (r'^stem\.conv1\.norm\.', 'bn1.'),
    (r'^res(?P<S>\d)\.', 'layer{S-1}.'),
    (r'\.conv(?P<n>\d)\.norm\.', '.bn{n}.'),
    (r'\.shortcut\.norm\.', '.downsample.1.'),
    (r'\.shortcut\.', '.downsample.0.'),
    (r'^stem\.(?P<n>conv1|bn1)\.', '{n}.'),
)

# Inverted residual blocks in each of the seven layers of MobileNetV2.
MOBILENET_BLOCKS = (1, 2, 3, 4, 3, 3, 1)


def _mobilenet_rules() -> Rules:
    places = [
        (layer, block)
        for layer, blocks in enumerate(MOBILENET_BLOCKS, 1)
        for block in range(blocks)
    ]
    numbered = tuple(
        (rf'^features\.{n}\.conv\.', f'layer{layer}.{block}.')
        for n, (layer, block) in enumerate(places, 1)
    )
    # The first block does not widen its input, so its convs count from there.
    narrow = (('0', 'depthwise_conv'), ('3', 'linear_conv'))
    wide = (('0', 'expand_conv'), ('3', 'depthwise_conv'), ('6', 'linear_conv'))
    inner = [(r'^(?P<n>layer1\.0)\.', pair) for pair in narrow]
    inner += [(r'^(?P<n>layer\d\.\d)\.', pair) for pair in wide]
    leaves: Rules = ()
    for place, (k, name) in inner:
        leaves += ((rf'{place}{k}\.', f'{{n}}.{name}.conv.'),)
        leaves += ((rf'{place}{int(k) + 1}\.', f'{{n}}.{name}.bn.'),)
    ends = (
        (r'^features\.0\.0\.', 'conv1.conv.'),
        (r'^features\.0\.1\.', 'conv1.bn.'),
        (r'^features\.18\.0\.', 'conv2.conv.'),
        (r'^features\.18\.1\.', 'conv2.bn.'),
    )
    return ends + numbered + leaves


MOBILENET = _mobilenet_rules()
BACKBONE = VOVNET + RESNET + MOBILENET

TIMM_VOVNET: Rules = (
    (r'\.conv_mid\.', '.layers.'),
    (r'\.conv_reduction\.', '.reduction.'),
    (r'\.conv_concat\.', '.concat.'),
    (r'\.attn\.fc\.', '.ese.fc.'),
)
# Here the norm of a depthwise layer, and only that, goes below the 1x1 conv.
TIMM_VOVNET_DEPTHWISE: Rules = (
    *TIMM_VOVNET,
    (r'\.conv_dw\.', '.depthwise.'),
    (r'\.conv_pw\.', '.pointwise.conv.'),
    (r'^stem\.(?P<n>[12])\.bn\.', 'stem.{n}.pointwise.bn.'),
    (r'\.layers\.(?P<i>\d+)\.bn\.', '.layers.{i}.pointwise.bn.'),
)


def fpn(first: int) -> Rules:
    """Rules for detectron2's pyramid whose finest level is P2 or P3."""
    return (
        (r'^fpn_lateral(?P<N>\d)\.', f'lateral_convs.{{N-{first}}}.conv.'),
        (r'^fpn_output(?P<N>\d)\.', f'fpn_convs.{{N-{first}}}.conv.'),
        (r'^top_block\.p(?P<N>\d)\.', f'fpn_convs.{{N-{first}}}.conv.'),
    )


# CenterMask v1 counts from C2, which its pyramid leaves out.
FPN_V1: Rules = (
    (r'^fpn_inner(?P<n>\d)\.', 'lateral_convs.{n-2}.conv.'),
    (r'^fpn_layer(?P<n>\d)\.', 'fpn_convs.{n-2}.conv.'),
    (r'^top_blocks\.p(?P<N>\d)\.', 'fpn_convs.{N-3}.conv.'),
)

# A tower is conv, group norm, ReLU, conv, ... counted in one sequence.
FCOS: Rules = (
    (r'^cls_tower\.(?P<k>0|3|6|9)\.', 'cls_convs.{k/3}.conv.'),
    (r'^cls_tower\.(?P<k>1|4|7|10)\.', 'cls_convs.{k/3}.gn.'),
    (r'^bbox_tower\.(?P<k>0|3|6|9)\.', 'reg_convs.{k/3}.conv.'),
    (r'^bbox_tower\.(?P<k>1|4|7|10)\.', 'reg_convs.{k/3}.gn.'),
    (r'^cls_logits\.', 'conv_cls.'),
    (r'^bbox_pred\.', 'conv_reg.'),
    (r'^(?:ctrness|centerness)\.', 'conv_centerness.'),
)

MASK: Rules = (
    (r'^mask_fcn(?P<n>\d)\.', 'convs.{n-1}.conv.'),
    (r'^spatialAtt\.', 'spatial_attention.'),
    (r'^(?:deconv|conv5_mask)\.', 'upsample.'),
    (r'^(?:predictor|mask_fcn_logits)\.', 'conv_logits.'),
)

MASK_IOU: Rules = (
    (r'^maskiou_fcn(?P<n>\d)\.', 'convs.{n-1}.'),
    (r'^maskiou_fc(?P<n>\d)\.', 'fcs.{n-1}.'),
    (r'^maskiou\.', 'fc_mask_iou.'),
)

# Conv and upsampling in turns, so every second module has weights.
SEMANTIC: Rules = (
    (
        r'^p(?P<N>\d)\.(?P<k>\d)\.norm\.',
        'conv_upsample_layers.{N-2}.conv.{k/2}.gn.',
    ),
    (r'^p(?P<N>\d)\.(?P<k>\d)\.', 'conv_upsample_layers.{N-2}.conv.{k/2}.conv.'),
    (r'^predictor\.', 'conv_logits.'),
)


def rename(name: str, rules: Rules) -> str:
    """Return `name` after all `rules`; unchanged where none applies."""
    for pattern, template in rules:
        name = re.sub(pattern, functools.partial(_fill, template), name)
    return name


def _fill(template: str, match: re.Match) -> str:
    def value(field: re.Match) -> str:
        group, operator, number = field.groups()
        if operator is None:
            return match[group]
        if operator == '-':
            return str(int(match[group]) - int(number))
        return str(int(match[group]) // int(number))

    return FIELD.sub(value, template)
