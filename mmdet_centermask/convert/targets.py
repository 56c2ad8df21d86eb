"""What the network wants: names and shapes, from the modules themselves.

The modules are built on the `meta` device, so that nothing is allocated. Which of
them, the file tells: the backbone by its names and shapes, the family by the width
of the pyramid. A config overrides all of that.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from ..models.vovnet import ARCHS
from .report import ConversionError, Shape

if TYPE_CHECKING:
    from .draft import Draft

Shapes = Mapping[str, Shape]

RESNET_CHANNELS = (256, 512, 1024, 2048)
UNCOUNTED = 'num_batches_tracked'
# Convs in a tower and in the mask heads, by the width of the pyramid.
CONVS = {256: 4, 128: 2}
COCO_CLASSES, COCO_STUFF = 80, 53


class Backbone(NamedTuple):
    """A backbone: its name, how to build it, and the widths of C2 to C5."""

    name: str
    config: dict
    channels: tuple[int, ...]


BACKBONES = (
    *[
        Backbone(name, dict(type='VoVNet', arch=name), arch.out_channels)
        for name, arch in ARCHS.items()
    ],
    Backbone('R-50', dict(type='ResNet', depth=50), RESNET_CHANNELS),
    Backbone('R-101', dict(type='ResNet', depth=101), RESNET_CHANNELS),
    Backbone(
        'X-101',
        dict(type='ResNeXt', depth=101, groups=32, base_width=8),
        RESNET_CHANNELS,
    ),
    Backbone('MobileNetV2', dict(type='MobileNetV2'), (24, 32, 96, 320)),
)


def detect_backbone(state: Mapping[str, Tensor]) -> Backbone:
    """Return the backbone that shares most names and shapes with `state`.

    A few tensors may be missing, so that a damaged file can be told what it lacks.

    Args:
        state: Tensors in the names of this package.

    Raises:
        ConversionError: No backbone has half of the tensors in common.
    """
    found = {
        (name, tuple(tensor.shape))
        for name, tensor in state.items()
        if name.startswith('backbone.')
        and not name.endswith(UNCOUNTED)
        and 'conv_offset' not in name
    }

    def likeness(backbone: Backbone) -> float:
        wanted = set(_backbone_shapes(backbone.name).items())
        return len(found & wanted) / max(len(found | wanted), 1)

    best = max(BACKBONES, key=likeness)
    if likeness(best) < 0.5:
        raise ConversionError(
            f'the backbone is none of {", ".join(b.name for b in BACKBONES)} '
            f'({len(found)} tensors, closest is {best.name})'
        )
    return _with_deformable_stages(best, state)


def _with_deformable_stages(backbone: Backbone, names: Iterable[str]) -> Backbone:
    stages = {
        int(found.group(1))
        for name in names
        if (found := re.match(r'backbone\.stages\.(\d)\..*\.conv_offset\.', name))
    }
    if not stages:
        return backbone
    config = dict(
        backbone.config,
        dcn=dict(type='DCNv2', deform_groups=1),
        stage_with_dcn=tuple(i in stages for i in range(4)),
    )
    return Backbone(f'{backbone.name}-dcn', config, backbone.channels)


@functools.cache
def _backbone_shapes(name: str) -> Shapes:
    (backbone,) = [b for b in BACKBONES if b.name == name]
    shapes = shapes_of(build(backbone.config), 'backbone.')
    return {n: s for n, s in shapes.items() if not n.endswith(UNCOUNTED)}


def build(config: Mapping) -> nn.Module:
    """Build a registered module without memory for its parameters."""
    with DefaultScope.overwrite_default_scope('mmdet'), torch.device('meta'):
        return MODELS.build(dict(config))


def shapes_of(module: nn.Module, prefix: str = '') -> dict[str, Shape]:
    """Names and shapes of all that the module saves."""
    return {prefix + n: tuple(t.shape) for n, t in module.state_dict().items()}


def wanted_shapes(draft: Draft, config: str | Path | None = None) -> dict[str, Shape]:
    """Names and shapes of the network that `draft` should fill.

    Args:
        draft: Tells backbone, family and number of classes.
        config: Take them from the model of this MMEngine config instead.
    """
    targets = ['backbone.']
    if not draft.bare:
        targets = [part.target for part in draft.source.parts]
    if config is not None:
        shapes = shapes_of(build(_model_of(Path(config))))
        return {n: s for n, s in shapes.items() if n.startswith(tuple(targets))}
    shapes = shapes_of(build(draft.backbone.config), 'backbone.')
    heads = {} if draft.bare else head_configs(draft)
    for target in targets:
        if target in heads:
            shapes.update(shapes_of(build(heads[target]), target))
    return shapes


def _model_of(config: Path) -> Mapping:
    if not config.is_file():
        raise ConversionError(f'no config at {config}')
    return Config.fromfile(config).model


def pyramid_width(state: Mapping[str, Tensor]) -> int:
    """Channels of the pyramid; 256 is CenterMask, 128 is CenterMask-Lite."""
    for name, tensor in state.items():
        if re.match(r'neck\..*\.bias$', name) and tensor.shape[0] in CONVS:
            return tensor.shape[0]
    raise ConversionError('no pyramid of 256 or 128 channels found, name a config')


def head_configs(draft: Draft) -> dict[str, dict]:
    """How to build each part behind the backbone, by the prefix of its names."""
    first, last = draft.source.levels
    width = pyramid_width(draft.state)
    num_classes = draft.num_classes or COCO_CLASSES
    channels = list(draft.backbone.channels[first - 2 :])
    convs = CONVS[width]
    roi = dict(num_convs=convs, in_channels=width, conv_out_channels=width)
    return {
        'neck.': dict(
            type='FPN',
            in_channels=channels,
            out_channels=width,
            num_outs=last - first + 1,
            add_extra_convs='on_output' if last > 5 else False,
        ),
        'bbox_head.': dict(
            type='FCOSHead',
            num_classes=num_classes,
            in_channels=width,
            feat_channels=width,
            stacked_convs=convs,
            conv_bias=True,
            norm_cfg=dict(type='GN', num_groups=32),
        ),
        'roi_head.mask_head.': dict(type='SAGMaskHead', num_classes=num_classes, **roi),
        'roi_head.mask_iou_head.': dict(
            type='MaskIoUHead', num_classes=num_classes, **roi
        ),
        'semantic_head.': dict(
            type='PanopticFPNHead', num_stuff_classes=COCO_STUFF, in_channels=width
        ),
    }


def shipped_config(draft: Draft) -> str | None:
    """The config of this package for the detector in `draft`, if there is one."""
    targets = {part.target for part in draft.source.parts}
    if 'roi_head.mask_head.' not in targets:
        return None
    if 'semantic_head.' in targets:
        family, schedule = 'panoptic-centermask', '3x'
    elif pyramid_width(draft.state) == 256:
        family, schedule = 'centermask', '3x'
    else:
        family, schedule = 'centermask-lite', '4x'
    name = f'{family}_{_config_arch(draft.backbone.name)}_fpn_ms-{schedule}_coco.py'
    package = Path(__file__).resolve().parents[1]
    # In the repository, and where pip has put them.
    folders = (package.parent / 'configs', package / '.mim' / 'configs')
    return name if any(list(folder.glob(f'**/{name}')) for folder in folders) else None


def _config_arch(backbone: str) -> str:
    """`'V-19-slim-dw'` to `'v19-slim-dw'`, as in the configs' names."""
    if backbone == 'MobileNetV2':
        return 'mv2'
    return backbone.lower().replace('-', '', 1)
