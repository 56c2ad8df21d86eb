"""A CenterMask small enough for a test, and pictures to show it.

The tiny model is the shipped CenterMask-Lite config made narrow, so that what a
test finds holds for the numbers that users get.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor, nn

CONFIGS = Path(__file__).resolve().parent.parent / 'configs'
LITE = CONFIGS / '_base_' / 'models' / 'centermask_lite.py'
CHANNELS = 32

Picture = tuple[Tensor, DetDataSample]
Box = tuple[float, float, float, float]


@cache
def lite_config() -> Config:
    """CenterMask-Lite as shipped; read once, it is asked for in every test."""
    return Config.fromfile(LITE)


def tiny_config(num_classes: int | None = 3, **options) -> ConfigDict:
    """The model part of CenterMask-Lite with V-19-slim-dw and 32 channels.

    Args:
        num_classes: The one number of the config.
        options: More fields, ``__`` for the dot: ``neck__num_outs=4``.
    """
    cfg = deepcopy(lite_config())
    cfg.merge_from_dict(
        {
            'model.num_classes': num_classes,
            'model.backbone.arch': 'V-19-slim-dw',
            'model.backbone.init_cfg': None,
            'model.neck.in_channels': [256, 384, 512],
            'model.neck.out_channels': CHANNELS,
            'model.bbox_head.in_channels': CHANNELS,
            'model.bbox_head.feat_channels': CHANNELS,
            'model.bbox_head.norm_cfg.num_groups': 8,
            'model.roi_head.mask_roi_extractor.out_channels': CHANNELS,
            'model.roi_head.mask_head.in_channels': CHANNELS,
            'model.roi_head.mask_head.conv_out_channels': CHANNELS,
            'model.roi_head.mask_iou_head.in_channels': CHANNELS,
            'model.roi_head.mask_iou_head.conv_out_channels': CHANNELS,
            'model.roi_head.mask_iou_head.fc_out_channels': 64,
            **{f'model.{key.replace("__", ".")}': v for key, v in options.items()},
        }
    )
    return cfg.model


def tiny_model(num_classes: int = 3, **options) -> nn.Module:
    """A seeded tiny CenterMask, weights as training starts with them."""
    init_default_scope('mmdet')
    # mmengine reports every single weight it initialises.
    MMLogger.get_current_instance().setLevel(logging.WARNING)
    torch.manual_seed(0)
    model = MODELS.build(tiny_config(num_classes, **options))
    model.init_weights()
    return model


def talkative(model: nn.Module, scale: float = 0.5, seed: int = 0) -> nn.Module:
    """Random output layers, so that an untrained model finds things of all kinds.

    A fresh head gives every location the same 1% and a distance of nearly 0.
    """
    generator = torch.Generator().manual_seed(seed)
    head = model.bbox_head
    for conv, bias in ((head.conv_cls, -1.5), (head.conv_centerness, 0.0)):
        conv.weight.data.normal_(0, scale, generator=generator)
        nn.init.constant_(conv.bias, bias)
    head.conv_reg.weight.data.normal_(0, 0.1, generator=generator)
    nn.init.constant_(head.conv_reg.bias, 2.0)
    # Masks that are sure of themselves: no pixel sits at the threshold.
    logits = model.roi_head.mask_head.conv_logits
    logits.weight.data.normal_(0, 10 * scale, generator=generator)
    return model


def picture(
    height: int = 64,
    width: int = 64,
    boxes: Sequence[Box] = ((8, 8, 40, 48),),
    labels: Sequence[int] | None = None,
    scale_factor: tuple[float, float] = (1.0, 1.0),
    seed: int = 0,
) -> Picture:
    """Noise with a bright ellipse in each box, whose mask is the ellipse.

    Args:
        height: Of the picture that the model sees, before padding.
        width: The same.
        boxes: ``x1, y1, x2, y2``.
        labels: Of the boxes; 0, 1, 2, 0, 1, ... by default.
        scale_factor: Width and height here over those of the original.
        seed: Of the noise.
    """
    if labels is None:
        labels = [i % 3 for i in range(len(boxes))]
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 80, (3, height, width)).astype(np.uint8)
    masks = np.zeros((len(boxes), height, width), np.uint8)
    for mask, box, label in zip(masks, boxes, labels, strict=True):
        mask[:] = ellipse(height, width, box)
        pixels[:, mask > 0] = np.array([[250, 90, 120], [90, 250, 60], [40, 120, 250]])[
            label % 3
        ][:, None]
    sample = DetDataSample(
        metainfo=dict(
            img_id=seed,
            img_shape=(height, width),
            ori_shape=(
                round(height / scale_factor[1]),
                round(width / scale_factor[0]),
            ),
            scale_factor=scale_factor,
        )
    )
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.long),
        masks=BitmapMasks(masks, height, width),
    )
    return torch.from_numpy(pixels), sample


def ellipse(height: int, width: int, box: Box) -> np.ndarray:
    """Boolean mask of the ellipse that fills ``box``."""
    x1, y1, x2, y2 = box
    ys, xs = np.mgrid[:height, :width] + 0.5
    across = (xs - (x1 + x2) / 2) / ((x2 - x1) / 2)
    down = (ys - (y1 + y2) / 2) / ((y2 - y1) / 2)
    return across**2 + down**2 <= 1


def batch_of(
    model: nn.Module, *pictures: Picture, training: bool = False
) -> tuple[Tensor, list[DetDataSample]]:
    """Normalise and pad ``pictures`` the way the model's own preprocessor does."""
    data = dict(
        inputs=[pixels for pixels, _ in pictures],
        data_samples=[deepcopy(sample) for _, sample in pictures],
    )
    data = model.data_preprocessor(data, training)
    return data['inputs'], data['data_samples']


def total(losses: dict[str, Tensor]) -> Tensor:
    """The sum that training descends."""
    return sum(value for name, value in losses.items() if 'loss' in name)
