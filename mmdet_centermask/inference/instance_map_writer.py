"""Instance maps: PNGs whose pixels are the numbers of objects, and their table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import mmcv
import numpy as np
from mmengine.structures import InstanceData

from .frames import Frame
from .instances import mask_of, scores_of

COLUMNS = ('picture', 'number', 'class', 'score', 'x1', 'y1', 'x2', 'y2', 'pixels')
MOST = np.iinfo(np.uint16).max


class InstanceMapWriter:
    """`instances/NAME.png`, 16 bits, and `instances.csv`, a line for each object.

    A pixel holds the number of its object, from 1, best score first; 0 is none. Where
    objects overlap the better one shows; `pixels` counts what shows.
    """

    def __init__(self, out_dir: Path, classes: Sequence[str]) -> None:
        self.folder = out_dir / 'instances'
        self.folder.mkdir(parents=True, exist_ok=True)
        self.classes = classes
        self.file = (out_dir / 'instances.csv').open('w', newline='', encoding='utf-8')
        self.table = csv.writer(self.file)
        self.table.writerow(COLUMNS)

    def write(self, frame: Frame, instances: InstanceData) -> str | None:
        """Add one picture, its instances best first."""
        numbers = instance_map(instances, frame.pixels.shape[:2])
        mmcv.imwrite(numbers, str(self.folder / f'{frame.name}.png'))
        visible = np.bincount(numbers.ravel(), minlength=len(instances) + 1)
        scores = scores_of(instances)
        for i, box in enumerate(instances.bboxes.tolist()):
            name, score = self.classes[instances.labels[i]], f'{scores[i]:.4f}'
            corners = [f'{side:.1f}' for side in box]
            row = (frame.name, i + 1, name, score, *corners, visible[i + 1])
            self.table.writerow(row)
        if len(instances) > MOST:
            return f'more than {MOST} objects, the weakest are not in the instance map'
        return None

    def close(self) -> None:
        self.file.close()


def instance_map(instances: InstanceData, size: tuple[int, int]) -> np.ndarray:
    """``(H, W)`` uint16 of instances that come best first."""
    numbers = np.zeros(size, np.uint16)
    for i in reversed(range(min(len(instances), MOST))):
        numbers[mask_of(instances, i) > 0] = i + 1
    return numbers
