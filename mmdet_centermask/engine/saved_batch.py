"""A batch on the disk, as the data loader gave it, and what else repeats its step.

The file holds mmdet's own samples. Opened with ``weights_only=True``, it may hold
nothing but tensors, NumPy arrays, numbers and the data classes listed here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.structures import InstanceData, PixelData
from torch import Tensor

# Beside what safe_checkpoints allows everywhere.
SAMPLE_CLASSES = [
    bytes,  # of an array without elements
    type(np.dtype('uint8')),
    DetDataSample,
    InstanceData,
    PixelData,
    HorizontalBoxes,
    BitmapMasks,
    PolygonMasks,
]


class SavedBatch(NamedTuple):
    """A training step before it was taken."""

    data_batch: dict[str, Any]
    """``inputs`` and ``data_samples``, before the data preprocessor."""

    state_dict: dict[str, Tensor]
    """The weights that the step met."""

    losses: dict[str, float]
    """What the step gave, by the names of the log."""

    seed: int
    rank: int
    iteration: int
    """Counted from 0; with seed and rank, the key of the step's random numbers."""


def save_batch(path: str | Path, saved: SavedBatch) -> None:
    """Write ``saved`` to ``path``."""
    torch.save(saved._asdict(), path)


def load_batch(path: str | Path) -> SavedBatch:
    """Read what :func:`save_batch` wrote; tensors come to the CPU.

    Raises:
        ValueError: The file is not one of those, in one line with the reason.
    """
    try:
        with torch.serialization.safe_globals(SAMPLE_CLASSES):
            return SavedBatch(**torch.load(path, 'cpu', weights_only=True))
    # What a foreign file raises depends on what it is.
    except Exception as error:
        reason = str(error).strip().partition('\n')[0]
        raise ValueError(f'{path} is no saved batch ({reason})') from error
