"""Config, checkpoint and class names that fit together, or a sentence why not."""

from __future__ import annotations

from collections.abc import Sequence
from pickle import UnpicklingError

from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from ..config_path import find_config
from ..experiment import ExperimentError
from ..models.pretrained import below_prefix, find_misfits


def config_path(name: str) -> str:
    """The path of a config given by path or name.

    Raises:
        ExperimentError: There is none; with similar names.
    """
    try:
        return find_config(name)
    except FileNotFoundError as error:
        raise ExperimentError(str(error)) from error


def read_checkpoint(path: str) -> dict:
    """What is in a checkpoint, a file or URL.

    Raises:
        ExperimentError: It cannot be had, or is no checkpoint.
    """
    try:
        checkpoint = CheckpointLoader.load_checkpoint(path, 'cpu', logger=None)
    except (OSError, EOFError, RuntimeError, UnpicklingError) as error:
        reason = str(error).strip().split('\n')[0]
        raise ExperimentError(
            f'checkpoint={path!r} cannot be read: {reason}'
        ) from error
    if not isinstance(checkpoint, dict):
        raise ExperimentError(f'checkpoint={path!r} holds no weights')
    return checkpoint


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
