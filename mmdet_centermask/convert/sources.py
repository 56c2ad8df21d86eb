"""The kinds of files that can be read: one row each, told apart by their names.

To add a kind, add a row. `find_source` takes the first row whose marks all occur,
so a row stands before those that would also fit its files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

from . import rename as names
from . import transforms
from .report import ConversionError


@dataclass(frozen=True)
class Part:
    """Names behind `prefix` (a pattern) go behind `target`, after `rules`."""

    prefix: str
    target: str
    rules: names.Rules


@dataclass(frozen=True)
class Fix:
    """`change` the tensors whose new names match `pattern`; `note` says it."""

    pattern: str
    change: Callable[[Tensor], Tensor]
    note: str = ''


@dataclass(frozen=True)
class Pixels:
    """What a network expects to see; BGR or RGB, on the 0..255 scale."""

    mean: tuple[float, ...] = transforms.IMAGENET_MEAN[::-1]
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    bgr_to_rgb: bool = False


@dataclass(frozen=True)
class Source:
    """One kind of file. All patterns match from the start of a name.

    Attributes:
        name: As printed, and as `--source` takes it in lower case with dashes.
        marks: Patterns that must each match some name of the file.
        parts: Which names go where.
        never: Patterns that must match no name.
        levels: First and last level of the pyramid.
        leave: Names that stay behind, reported by number. Others that no part
            claims are unexpected.
        fixes: Changes of the numbers.
        pixels: What the network was trained on.
        gates: Whether eSE gates may be missing, which is the same as open gates.
        notes: What a config has to say to use the result.
    """

    name: str
    marks: tuple[str, ...]
    parts: tuple[Part, ...] = ()
    never: tuple[str, ...] = ()
    levels: tuple[int, int] = (3, 7)
    leave: str = r'(?!)'
    fixes: tuple[Fix, ...] = ()
    pixels: Pixels = Pixels()
    gates: bool = False
    notes: tuple[str, ...] = ()

    @property
    def slug(self) -> str:
        return self.name.lower().replace(' ', '-')

    @property
    def backbone_only(self) -> bool:
        return all(part.target == 'backbone.' for part in self.parts)

    def fits(self, tensor_names: Iterable[str]) -> bool:
        """Whether a file with these names is of this kind."""

        def occurs(pattern: str) -> bool:
            return any(re.match(pattern, name) for name in tensor_names)

        return all(map(occurs, self.marks)) and not any(map(occurs, self.never))


D2_BACKBONE = Part(r'backbone\.bottom_up\.', 'backbone.', names.BACKBONE)
# Behind D2_BACKBONE, which stands below the same prefix.
D2_FPN_P2 = Part(r'backbone\.', 'neck.', names.fpn(2))
D2_FPN_P3 = Part(r'backbone\.', 'neck.', names.fpn(3))
D2_FCOS = Part(r'proposal_generator\.fcos_head\.', 'bbox_head.', names.FCOS)
D2_ROI = (
    Part(r'roi_heads\.mask_head\.', 'roi_head.mask_head.', names.MASK),
    Part(r'roi_heads\.maskiou_head\.', 'roi_head.mask_iou_head.', names.MASK_IOU),
)
V1_BACKBONE = Part(r'backbone\.body\.', 'backbone.', names.BACKBONE)
V1_MASK = r'roi_heads\.mask\.(?:feature_extractor|predictor)\.'
V1_MASK_IOU = r'roi_heads\.maskiou\.(?:feature_extractor|predictor)\.'

# The first conv of every backbone that can be read.
FIRST_CONV = r'(?:stem\.stem_1/conv|stem\.conv1|features\.0\.0)\.weight$'
TIMM_FIRST_LAYER = r'stages\.0\.blocks\.0\.conv_mid\.0\.'
BARE = r'(?:bottom_up\.|backbone\.)?'

SCALES = Fix(r'bbox_head\.scales\.\d\.scale$', transforms.as_scalar)
THINGS = Fix(
    r'semantic_head\.conv_logits\.',
    transforms.first_row_last,
    "row 'things' of the semantic head moved from first to last, where MMDetection "
    'has it',
)
FROZEN_BN = Fix(
    r'backbone\..*\.running_var$',
    transforms.without_eps,
    'FrozenBN without eps: 1e-5 subtracted from running_var, to be exact in a norm '
    'that adds it',
)
BACKGROUND = Fix(
    r'roi_head\.(?:mask_head\.conv_logits|mask_iou_head\.fc_mask_iou)\.',
    transforms.without_first_row,
    'row 0 (background) dropped from the mask and mask-IoU predictors',
)
V1_PIXELS = Pixels(mean=(102.9801, 115.9465, 122.7717))
TIMM_PIXELS = Pixels(transforms.IMAGENET_MEAN, transforms.IMAGENET_STD, bgr_to_rgb=True)
DIVIDED_PIXELS = Pixels(std=transforms.IMAGENET_STD[::-1])
# Where one arch of a kind of file was trained on other pixels than the rest.
ARCH_PIXELS: dict[tuple[str, str], Pixels] = {
    ('CenterMask2', 'X-101'): DIVIDED_PIXELS,
    ('Panoptic CenterMask2', 'X-101'): DIVIDED_PIXELS,
    ('detectron2 detector', 'X-101'): DIVIDED_PIXELS,
    ('timm', 'V-57'): Pixels((127.5,) * 3, (127.5,) * 3, bgr_to_rgb=True),
}

SOURCES: tuple[Source, ...] = (
    Source(
        name='Panoptic CenterMask2',
        marks=(D2_BACKBONE.prefix, D2_FCOS.prefix, D2_ROI[0].prefix, r'sem_seg_head\.'),
        parts=(
            D2_BACKBONE,
            D2_FPN_P2,
            D2_FCOS,
            *D2_ROI,
            Part(r'sem_seg_head\.', 'semantic_head.', names.SEMANTIC),
        ),
        levels=(2, 7),
        fixes=(SCALES, THINGS),
    ),
    Source(
        name='CenterMask2',
        marks=(D2_BACKBONE.prefix, D2_FCOS.prefix, D2_ROI[0].prefix),
        parts=(D2_BACKBONE, D2_FPN_P3, D2_FCOS, *D2_ROI),
        fixes=(SCALES,),
    ),
    Source(
        name='CenterMask v1',
        marks=(V1_BACKBONE.prefix, r'rpn\.head\.cls_tower\.', V1_MASK),
        parts=(
            V1_BACKBONE,
            Part(r'backbone\.fpn\.', 'neck.', names.FPN_V1),
            Part(r'rpn\.head\.', 'bbox_head.', names.FCOS),
            Part(V1_MASK, 'roi_head.mask_head.', names.MASK),
            Part(V1_MASK_IOU, 'roi_head.mask_iou_head.', names.MASK_IOU),
        ),
        fixes=(SCALES, FROZEN_BN, BACKGROUND),
        pixels=V1_PIXELS,
        notes=(
            'boxes are exp(x) in pixels: set bbox_head.norm_on_bbox=False',
            'RoIs are pooled as in the first Mask R-CNN: set aligned=False and '
            'sampling_ratio=2 in roi_head.mask_roi_extractor.roi_layer',
        ),
    ),
    Source(
        name='FCOS',
        marks=(D2_BACKBONE.prefix, D2_FCOS.prefix, r'backbone\.fpn_lateral3\.'),
        parts=(D2_BACKBONE, D2_FPN_P3, D2_FCOS),
        fixes=(SCALES,),
    ),
    Source(
        name='detectron2 detector',
        marks=(D2_BACKBONE.prefix, r'backbone\.fpn_lateral2\.'),
        parts=(D2_BACKBONE, D2_FPN_P2),
        levels=(2, 5),
        leave=r'(?!backbone\.)',
    ),
    Source(
        name='detectron2 backbone',
        marks=(r'backbone\.bottom_up\.' + FIRST_CONV,),
        parts=(D2_BACKBONE,),
        leave=r'(?!backbone\.bottom_up\.)',
    ),
    Source(
        name='maskrcnn-benchmark backbone',
        marks=(r'backbone\.body\.' + FIRST_CONV,),
        parts=(V1_BACKBONE,),
        leave=r'(?!backbone\.body\.)',
        fixes=(FROZEN_BN,),
        pixels=V1_PIXELS,
    ),
    Source(
        name='img_backbone',
        marks=(r'img_backbone\.' + FIRST_CONV,),
        parts=(Part(r'img_backbone\.', 'backbone.', names.BACKBONE),),
        leave=r'(?!img_backbone\.)',
        pixels=DIVIDED_PIXELS,
        notes=('the pixels are those of PETR and DETR3D with VoVNet',),
    ),
    Source(
        name='timm depthwise',
        marks=(TIMM_FIRST_LAYER + r'conv_dw\.',),
        parts=(Part('', 'backbone.', names.TIMM_VOVNET_DEPTHWISE),),
        leave=r'head\.',
        pixels=TIMM_PIXELS,
        gates=True,
    ),
    Source(
        name='timm',
        marks=(TIMM_FIRST_LAYER + r'conv\.',),
        parts=(Part('', 'backbone.', names.TIMM_VOVNET),),
        leave=r'head\.',
        pixels=TIMM_PIXELS,
        gates=True,
    ),
    Source(
        name='backbone',
        marks=(BARE + FIRST_CONV,),
        parts=(Part(BARE, 'backbone.', names.BACKBONE),),
        leave=r'(?:head|classifier|fc|linear)\.',
    ),
)

REFUSED: tuple[tuple[Source, str], ...] = (
    (
        Source(name='VoVNet V1', marks=(r'.*stage2\.OSA2_1\.',), never=(r'.*\.ese\.',)),
        'VoVNet V1: without eSE and identity paths it is another network',
    ),
    (
        Source(name='timm V1', marks=(TIMM_FIRST_LAYER,), never=(r'.*\.attn\.fc\.',)),
        'a VoVNet of timm without eSE (only its ese_vovnet* are this network)',
    ),
    (
        Source(name='own', marks=(r'(?:backbone\.)?stages\.0\.blocks\.0\.concat\.',)),
        'already in the names of this package, nothing to convert',
    ),
)


def find_source(tensor_names: Iterable[str], slug: str | None = None) -> Source:
    """Return the row for a file with these names, or the row called `slug`.

    Raises:
        ConversionError: There is none, or the file is one of `REFUSED`.
    """
    tensor_names = list(tensor_names)
    for kind, reason in REFUSED:
        if kind.fits(tensor_names):
            raise ConversionError(reason)
    for source in SOURCES:
        if source.slug == slug or (slug is None and source.fits(tensor_names)):
            return source
    if slug is not None:
        known = ', '.join(source.slug for source in SOURCES)
        raise ConversionError(f'source {slug!r} is unknown, choose one of {known}')
    first = ', '.join(sorted(tensor_names)[:3])
    raise ConversionError(f'no known kind of checkpoint, with names such as {first}')
