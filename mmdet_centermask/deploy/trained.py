"""A trained detector, from its config and checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from mmdet.models.detectors import BaseDetector
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint

from ..config_path import find_config
from ..experiment import ExperimentError, check_checkpoint, walk_datasets


class TrainedDetector(NamedTuple):
    """What a config and a checkpoint say together."""

    name: str
    """Of the config file, without `.py`."""

    config: Config
    model: BaseDetector
    """On the CPU, in eval mode."""

    classes: tuple[str, ...]


def load_trained(config: str, checkpoint: str) -> TrainedDetector:
    """Build the model of `config` and fill it; every weight has to fit.

    Args:
        config: A path, or the name of a config of this package.
        checkpoint: A path or URL.

    Raises:
        ExperimentError: A file is missing, the weights are of another model, or the
            names of the classes cannot be found.
    """
    check_checkpoint('checkpoint', checkpoint)
    try:
        path = find_config(config)
    except FileNotFoundError as error:
        raise ExperimentError(str(error)) from error
    cfg = Config.fromfile(path)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    model = MODELS.build(cfg.model).eval()
    try:
        loaded = load_checkpoint(model, checkpoint, map_location='cpu', strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ExperimentError(
            f'checkpoint={checkpoint!r} does not fit config={config!r}: '
            f'{" ".join(lines[1:3])}'
        ) from error
    meta = loaded.get('meta', {}).get('dataset_meta') or {}
    classes = meta.get('classes') or classes_of_config(cfg)
    count = cfg.model.get('num_classes') or model.bbox_head.num_classes
    if len(classes) != count:
        raise ExperimentError(
            f'model.num_classes={count} but the data names {len(classes)} classes'
        )
    return TrainedDetector(Path(path).stem, cfg, model, tuple(classes))


def classes_of_config(cfg: Config) -> tuple[str, ...]:
    """Class names of the first test dataset; its files need not be there."""
    if cfg.get('test_dataloader') is None:
        raise ExperimentError(
            'neither the checkpoint nor the config (test_dataloader) names the classes'
        )
    _, dataset = next(walk_datasets(cfg.test_dataloader.dataset, ''))
    return DATASETS.build(dict(dataset, lazy_init=True)).metainfo['classes']
