"""One labelme file for each picture, to open in labelme and correct."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
from mmengine.structures import InstanceData

from .frames import Frame
from .instances import mask_of, scores_of
from .mask_polygons import polygons_of
from .sources import is_remote

LABELME_VERSION = '5.5.0'  # of the format


class LabelmeWriter:
    """`labelme/NAME.json`, with a path to the picture.

    Frames, arrays and what came from a URL have no picture on disk, so that one is
    written beside the file. Parts of one object have one `group_id`.
    """

    def __init__(self, out_dir: Path, classes: Sequence[str]) -> None:
        self.folder = out_dir / 'labelme'
        self.classes = classes

    def write(self, frame: Frame, instances: InstanceData) -> None:
        path = self.folder / f'{frame.name}.json'
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = frame.pixels.shape[:2]
        content = dict(
            version=LABELME_VERSION,
            flags={},
            shapes=[
                s for i in range(len(instances)) for s in self.shapes(instances, i)
            ],
            imagePath=self.picture_for(frame, path),
            imageData=None,
            imageHeight=height,
            imageWidth=width,
        )
        path.write_text(json.dumps(content, indent=1), encoding='utf-8')

    def shapes(self, instances: InstanceData, number: int) -> list[dict[str, Any]]:
        """One polygon for each part of an object."""
        polygons = polygons_of(mask_of(instances, number))
        return [
            dict(
                label=self.classes[instances.labels[number]],
                points=polygon.round(2).tolist(),
                group_id=number if len(polygons) > 1 else None,
                description=f'score {float(scores_of(instances)[number]):.3f}',
                shape_type='polygon',
                flags={},
            )
            for polygon in polygons
        ]

    def picture_for(self, frame: Frame, path: Path) -> str:
        """The picture as seen from the folder of `path`."""
        where = frame.source.where
        if isinstance(where, str) and frame.fps is None and not is_remote(where):
            return Path(os.path.relpath(where, path.parent)).as_posix()
        picture = path.with_suffix('.png')
        mmcv.imwrite(frame.pixels, str(picture))
        return picture.name

    def close(self) -> None:
        pass
