"""Pictures to measure on, as a data loader hands them out."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate

from ..experiment import ExperimentError


def load_picture(path: str, cfg: Config) -> dict[str, Any]:
    """A batch of one file, at the size that the config's test pipeline gives it."""
    pipeline = [
        step
        for step in get_test_pipeline_cfg(cfg)
        if not step.type.startswith('Load') or step.type == 'LoadImageFromFile'
    ]
    return pseudo_collate([Compose(pipeline)(dict(img_path=path, img_id=0))])


def network_shape(cfg: Config) -> tuple[int, int]:
    """Height and width of a 4:3 picture at the config's test scale, padded to 32.

    Raises:
        ExperimentError: The test pipeline names no scale.
    """
    resize = [t for t in cfg.get('test_pipeline', ()) if t.type == 'Resize']
    if not resize or not isinstance(resize[0].get('scale'), (list, tuple)):
        raise ExperimentError(
            'test_pipeline has no Resize with a scale of two numbers; '
            'give the size with --shape HEIGHT WIDTH'
        )
    long, short = max(resize[0].scale), min(resize[0].scale)
    height, width = min(short, long * 3 / 4), min(long, short * 4 / 3)
    return -(-round(height) // 32) * 32, -(-round(width) // 32) * 32


def noise(shape: tuple[int, int], batch: int) -> dict[str, Any]:
    """Pictures of seeded noise, loaded and resized, as a data loader hands them out.

    Args:
        shape: Height and width.
        batch: How many.
    """
    generator = torch.Generator().manual_seed(0)
    size = (batch, 3, *shape)
    pictures = torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)
    samples = [
        DetDataSample(
            metainfo=dict(
                img_id=i, img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0)
            )
        )
        for i in range(batch)
    ]
    return dict(inputs=list(pictures), data_samples=samples)
