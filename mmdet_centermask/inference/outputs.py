"""Everything that is written for a frame, behind one call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from mmengine.structures import InstanceData

from ..experiment import ExperimentError
from .coco_writers import CocoPolygonsWriter, CocoResultsWriter
from .frames import Frame
from .instance_map_writer import InstanceMapWriter
from .labelme_writer import LabelmeWriter
from .overlay_writer import OverlayWriter
from .prediction import Prediction
from .sources import Skipped

FORMATS = ('overlay', 'coco', 'polygons', 'labelme', 'instances')
NEED_MASKS = ('polygons', 'labelme', 'instances')


class Writer(Protocol):
    """Turns the instances of one frame after the other into files."""

    def write(self, frame: Frame, instances: InstanceData) -> str | None:
        """Add a frame; its instances come best first. What cannot be, is said."""

    def close(self) -> None:
        """Make the files whole."""


class Outputs:
    """The files of one run; :meth:`close` makes them whole.

    Args:
        out_dir: The folder, or an empty text for no files at all.
        formats: Of :data:`FORMATS`.
        classes: Names, in the order of the labels.
        ann_file: COCO file to take the ids in COCO files from.

    Raises:
        ExperimentError: A format is unknown, or `ann_file` does not fit.
    """

    def __init__(
        self,
        out_dir: str | PathLike,
        formats: Sequence[str],
        classes: Sequence[str],
        ann_file: str | None = None,
    ) -> None:
        unknown = [name for name in formats if name not in FORMATS]
        if unknown:
            raise ExperimentError(
                f'save={unknown[0]!r} is unknown, choose of {", ".join(FORMATS)}'
            )
        self.folder = Path(out_dir)
        self.formats = formats if str(out_dir) else ()
        make: dict[str, Callable[[], Any]] = dict(
            coco=lambda: CocoResultsWriter(self.folder, classes, ann_file),
            polygons=lambda: CocoPolygonsWriter(self.folder, classes, ann_file),
            labelme=lambda: LabelmeWriter(self.folder, classes),
            instances=lambda: InstanceMapWriter(self.folder, classes),
        )
        self.writers: dict[str, Writer] = {
            name: make[name]() for name in self.formats if name in make
        }
        self.views: dict[str, OverlayWriter] = {}

    def add(self, prediction: Prediction) -> Iterator[Skipped]:
        """Write a frame; what could not be written is yielded."""
        frame, instances = prediction.frame, prediction.instances
        for name, writer in self.writers.items():
            if name in NEED_MASKS and 'masks' not in instances:
                raise ExperimentError(f'save={name!r}: this detector gives no masks')
            problem = writer.write(frame, instances)
            if problem:
                yield Skipped(frame.name, problem)
        views = dict(attention=prediction.attention)
        if 'overlay' in self.formats:
            views['overlays'] = prediction.overlay
        for name, drawn in views.items():
            if drawn is not None and self.formats:
                view = self.views.setdefault(name, OverlayWriter(self.folder / name))
                problem = view.write(frame, np.ascontiguousarray(drawn[..., ::-1]))
                if problem:
                    yield Skipped(frame.name, problem)

    def close(self) -> None:
        for writer in (*self.writers.values(), *self.views.values()):
            writer.close()
