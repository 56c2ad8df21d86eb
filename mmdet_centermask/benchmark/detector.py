"""Detectors to measure, built without files that cannot be had."""

from __future__ import annotations

import logging
from typing import Any

import torch
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint


def build_detector(cfg: Config, checkpoint: str | None = None) -> BaseDetector:
    """The detector of a config on the best device, ready to predict.

    Args:
        cfg: Its pretrained weights are not loaded.
        checkpoint: Has to fit completely; without one, weights are drawn from seed 0.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    # mmengine reports every single weight it initialises.
    MMLogger.get_current_instance().setLevel(logging.WARNING)
    torch.manual_seed(0)
    model = MODELS.build(without_pretrained(cfg.model))
    if checkpoint is None:
        model.init_weights()
    else:
        load_checkpoint(model, checkpoint, map_location='cpu', strict=True)
    return model.to(get_device()).eval()


def without_pretrained(part: Any) -> Any:
    """A config without any ``init_cfg`` that loads a file."""
    if isinstance(part, dict):
        return type(part)(
            {
                key: without_pretrained(value)
                for key, value in part.items()
                if key not in ('init_cfg', 'pretrained') or not loads_file(value)
            }
        )
    if isinstance(part, (list, tuple)):
        return type(part)(without_pretrained(item) for item in part)
    return part


def loads_file(init_cfg: Any) -> bool:
    if isinstance(init_cfg, (list, tuple)):
        return any(loads_file(one) for one in init_cfg)
    return isinstance(init_cfg, str) or (init_cfg or {}).get('type') == 'Pretrained'
