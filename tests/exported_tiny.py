"""Tiny trained networks as files, for the tests of the export."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from skimage import data as photographs
from tiny_centermask import talkative
from torch import nn

CLASSES = ('circle', 'square', 'star')


class Exported(NamedTuple):
    """A model and the folder it was exported to."""

    config: Path
    checkpoint: Path
    folder: Path
    model: nn.Module


def write_network(
    folder: Path,
    model: nn.Module,
    model_cfg: ConfigDict,
    classes: tuple[str, ...] = CLASSES,
    resize: dict | None = None,
) -> tuple[Path, Path]:
    """A config with test data that is not there, and a checkpoint of `model`."""
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', keep_ratio=True, **(resize or dict(scale_factor=0.5))),
        dict(type='PackDetInputs'),
    ]
    dataset = dict(
        type='CocoDataset',
        ann_file='missing.json',
        metainfo=dict(classes=classes),
        pipeline=pipeline,
    )
    cfg = Config(
        dict(
            default_scope='mmdet',
            model=model_cfg,
            test_dataloader=dict(dataset=dataset),
        )
    )
    config, checkpoint = folder / 'tiny.py', folder / 'tiny.pth'
    cfg.dump(config)
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    return config, checkpoint


def finder(model: nn.Module, scale: float = 0.5) -> nn.Module:
    """A model that finds things, and whose masks do not hang on the last bit.

    Without a bias, features that ReLU has silenced give a probability of exactly 0.5.
    """
    talkative(model, scale)
    nn.init.constant_(model.roi_head.mask_head.conv_logits.bias, 0.3)
    return model.eval()


def load_tool(repository: Path, name: str) -> ModuleType:
    """A command, as a module."""
    path = repository / 'tools' / f'{name}.py'
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def real_pictures() -> dict[str, np.ndarray]:
    """Photographs of six sizes, RGB."""
    cat, astronaut = photographs.chelsea(), photographs.astronaut()
    return {
        'cat': cat,  # 451 x 300
        'coffee': photographs.coffee(),  # 600 x 400
        'rocket': photographs.rocket(),  # 640 x 427
        'astronaut': astronaut,  # 512 x 512
        'face': astronaut[10:211, 150:301],  # 151 x 201
        'whiskers': cat[150:190, 150:203],  # 53 x 40
    }
