"""A config and the weights for it, from what a person names."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike, fspath
from typing import Any

from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from ..config_path import find_config
from ..experiment import ExperimentError, check_checkpoint
from ..models.pretrained import below_prefix, find_misfits
from ..safe_checkpoints import CheckpointError
from .checkpoint_config import config_of_checkpoint

CHECKPOINTS = ('.pth', '.pt')
ANNOTATION_LOADERS = ('LoadAnnotations', 'LoadPanopticAnnotations')


def read_model(
    model: str | PathLike | Config | None,
    weights: str | PathLike | None,
    options: dict[str, Any],
) -> tuple[Config, dict | None]:
    """Config, made ready for inference, and checkpoint.

    Args:
        model: Name or path of a config, a config, or a checkpoint alone.
        weights: Checkpoint, file or URL.
        options: Fields of the config to override, ``{'a.b': 1}``.

    Raises:
        ExperimentError: There is no such config, checkpoint or field.
    """
    if isinstance(model, (str, PathLike)):
        model = fspath(model)
        if weights is None and model.endswith(CHECKPOINTS):
            model, weights = None, model
    checkpoint = None if weights is None else read_checkpoint(fspath(weights))
    if isinstance(model, str):
        cfg = read_config(model)
    elif model is not None:
        cfg = model
    elif checkpoint is not None:
        cfg = config_of_checkpoint(checkpoint, fspath(weights or ''))
    else:
        raise ExperimentError('neither a config nor a checkpoint is given')
    try:
        cfg.merge_from_dict(options)
    except (KeyError, TypeError) as error:
        raise ExperimentError(f'cfg_options: {error.args[0]}') from error
    return for_inference(cfg), checkpoint


def read_config(name: str) -> Config:
    try:
        return Config.fromfile(find_config(name))
    except FileNotFoundError as error:
        raise ExperimentError(str(error)) from error


def read_checkpoint(path: str) -> dict:
    check_checkpoint('checkpoint', path)
    try:
        checkpoint = CheckpointLoader.load_checkpoint(path, 'cpu', logger=None)
    except CheckpointError as error:
        raise ExperimentError(f'checkpoint {error}') from error
    except OSError as error:
        raise ExperimentError(f'checkpoint={path!r} cannot be read: {error}') from error
    if not isinstance(checkpoint, dict):
        raise ExperimentError(f'checkpoint={path!r} holds no weights')
    return checkpoint


def for_inference(cfg: Config) -> Config:
    """`cfg` without annotations, which there are none of, and with frugal masks."""
    dataset = cfg.test_dataloader.dataset
    dataset.pipeline = [
        step for step in dataset.pipeline if step['type'] not in ANNOTATION_LOADERS
    ]
    if cfg.model.type == 'CenterMask':
        # Hundreds of masks of a large picture would be gigabytes as bitmaps.
        cfg.model.test_cfg.rcnn.mask_format = 'rle'
    return cfg


def check_weights(model: nn.Module, checkpoint: dict) -> None:
    """Refuse a checkpoint that leaves a part of `model` at random.

    Raises:
        ExperimentError: Tensors are missing or of another shape; names the first.
    """
    state = checkpoint.get('state_dict', checkpoint)
    own = model.state_dict()
    misfits = find_misfits(own, state)
    if misfits:
        misfits = find_misfits(own, below_prefix(state, 'module'))
    if misfits:
        raise ExperimentError(
            f'the checkpoint does not fit the config: {len(misfits)} of {len(own)} '
            f'tensors, such as {"; ".join(misfits[:2])}'
        )


def classes_of(model: nn.Module, cfg: Config) -> Sequence[str]:
    """Names of the config's data, completed where the model counts more."""
    dataset = dict(cfg.test_dataloader.dataset, lazy_init=True)
    names = list(DATASETS.build(dataset).metainfo.get('classes', ()))
    count = getattr(getattr(model, 'bbox_head', None), 'num_classes', 0)
    return names + [f'class {i}' for i in range(len(names), count)]
