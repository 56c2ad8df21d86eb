"""``torch.compile`` for the parts of a detector whose work depends on sizes alone."""

from __future__ import annotations

import math

import torch
from mmengine.model import ImgDataPreprocessor
from torch import nn

COMPILED = ('backbone', 'neck', 'bbox_head', 'rpn_head')
# Sides of the padded picture are multiples of this, so that a folder of photographs
# has some twenty sizes and not hundreds: each size is compiled once.
BUCKET = 128
SIZES = 64


def compile_network(detector: nn.Module) -> list[nn.Module]:
    """Compile backbone, neck and dense head when they first run, in place.

    Pictures are padded to multiples of 128 pixels from now on, which moves answers as
    little as any other padding. Up to 64 sizes are kept compiled; further ones run as
    they are. RoI heads stay as they are: their work depends on what was found.

    Returns:
        The parts that compile.
    """
    # Their convs get their weights packed by the compiler.
    options = {'freezing': True} if _on_cpu(detector) else None
    parts = [part for name, part in detector.named_children() if name in COMPILED]
    for part in parts:
        part.compile(dynamic=False, options=options)
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, SIZES)
    pad_to_multiples_of(BUCKET, detector.data_preprocessor)
    return parts


def pad_to_multiples_of(bucket: int, preprocessor: ImgDataPreprocessor) -> None:
    """Pad to a multiple of ``bucket`` that is one of the old divisor too."""
    preprocessor.pad_size_divisor = math.lcm(preprocessor.pad_size_divisor, bucket)


def _on_cpu(detector: nn.Module) -> bool:
    return next(detector.parameters()).device.type == 'cpu'
