"""Run-length encoded masks that MMDetection reads like a tensor of masks.

2000 masks of a 1024 x 1024 picture are 2 GB as a bool tensor and a few hundred
kilobytes as COCO's RLE. mmdet's metrics, visualizer and inferencer expect the
tensor; they ask it for ``detach``, ``cpu``, ``numpy``, ``astype`` and rows, and
those are what :class:`RLEMasks` answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor


class RLEMask(dict):
    """COCO's ``dict(size=[H, W], counts=...)``, which also takes an array's index.

    ``mask[:, :, None]`` decodes: mmdet's ``encode_mask_results`` reads masks so.
    """

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return super().__getitem__(key)
        return self.to_array()[key]

    def to_array(self) -> np.ndarray:
        """``(H, W)`` uint8, 1 inside the mask."""
        return coco_mask.decode(dict(self))


class RLEMasks(Sequence):
    """The masks of one picture, a field of ``InstanceData``.

    Args:
        masks: COCO RLEs with compressed ``counts``.
        size: Height and width of the picture, which an empty list cannot tell.
    """

    def __init__(self, masks: Iterable[dict], size: tuple[int, int]) -> None:
        self.masks = [m if isinstance(m, RLEMask) else RLEMask(m) for m in masks]
        self.size = size

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, item: Any) -> Any:
        """An :class:`RLEMask` for a number, :class:`RLEMasks` for anything else."""
        if isinstance(item, int):
            return self.masks[item]
        numbers = np.arange(len(self))[_as_index(item)]
        return RLEMasks([self.masks[i] for i in numbers], self.size)

    def __repr__(self) -> str:
        return f'RLEMasks(len={len(self)}, size={self.size})'

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the tensor that these masks stand for."""
        return (len(self), *self.size)

    @staticmethod
    def cat(parts: Sequence[RLEMasks]) -> RLEMasks:
        """Join masks of one picture; ``InstanceData`` indexes by joining slices."""
        return RLEMasks([mask for part in parts for mask in part.masks], parts[0].size)

    # The tensor's way to NumPy costs nothing here and copies nothing.
    def to(self, *args: Any, **kwargs: Any) -> RLEMasks:
        return self

    def detach(self) -> RLEMasks:
        return self

    def cpu(self) -> RLEMasks:
        return self

    def numpy(self) -> RLEMasks:
        return self

    # From here on every mask is decoded: n x H x W bytes.
    def to_ndarray(self) -> np.ndarray:
        """``(n, H, W)`` uint8."""
        if not self.masks:
            return np.zeros(self.shape, np.uint8)
        return np.stack([mask.to_array() for mask in self.masks])

    def astype(self, dtype: Any) -> np.ndarray:
        """``(n, H, W)``; mmdet's visualizer asks for ``bool``."""
        return self.to_ndarray().astype(dtype)

    def to_tensor(self, dtype: torch.dtype, device: Any = None) -> Tensor:
        """``(n, H, W)``, called like the method of mmdet's ``BitmapMasks``."""
        return torch.from_numpy(self.to_ndarray()).to(dtype=dtype, device=device)


def _as_index(item: Any) -> Any:
    return item.cpu().numpy() if isinstance(item, Tensor) else item
