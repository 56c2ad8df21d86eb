"""One frame and what the detector says about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from .frames import Frame


@dataclass
class Prediction:
    """What the inferencer gives for a frame."""

    frame: Frame

    sample: DetDataSample
    """mmdet's, on the CPU, in pixels of the frame."""

    overlay: np.ndarray | None = None
    """``(H, W, 3)`` uint8 RGB, where it was drawn."""

    attention: np.ndarray | None = None
    """The same with attention maps and levels."""

    @property
    def instances(self) -> InstanceData:
        """Those that pass the score threshold, best mask score first."""
        return self.sample.pred_instances
