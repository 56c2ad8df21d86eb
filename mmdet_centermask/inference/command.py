"""What `tools/infer.py` does: run, count, and say what came of it."""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress

import cv2

from ..experiment import ExperimentError, parse_cfg_options
from .inferencer import CenterMaskInferencer
from .model_source import CHECKPOINTS
from .prediction import Prediction
from .sources import Skipped, Source, find_sources

RUN_OPTIONS = (
    'out_dir', 'save', 'attention', 'ann_file', 'show', 'batch_size', 'score_thr',
)  # fmt: skip


def infer(args: argparse.Namespace) -> None:
    """Predict, write and print a summary. Ctrl-C ends a run as if it were complete.

    Raises:
        ExperimentError: Nothing to look at, nothing that could be read, or the
            arguments do not fit together.
    """
    silence_decoders()
    # An old call in mmdet's points of FCOS; nothing a user could do about it.
    warnings.filterwarnings('ignore', 'torch.meshgrid', UserWarning)
    sources = find_sources(args.inputs)
    if not any(isinstance(source, Source) for source in sources):
        raise ExperimentError(f'nothing to look at: {reasons(sources)}')
    if args.checkpoint is None and not args.model.endswith(CHECKPOINTS):
        raise ExperimentError(
            f'model={args.model!r} is a config, which has no weights: add --checkpoint'
        )
    inferencer = CenterMaskInferencer(
        args.model,
        args.checkpoint,
        args.device,
        fast=not args.no_fast,
        color_by=args.color_by,
        cfg_options=parse_cfg_options(args.cfg_options or []),
    )
    tally = Tally(inferencer.visualizer.dataset_meta['classes'])
    chosen = {name: getattr(args, name) for name in RUN_OPTIONS}
    try:
        with (
            suppress(KeyboardInterrupt),
            closing(inferencer.run(sources, **chosen)) as items,
        ):
            for item in items:
                tally.add(item)
    except cv2.error as error:
        if not args.show:
            raise
        raise ExperimentError(f'--show: no window can be opened ({error})') from error
    if tally.skipped and not tally.frames:
        raise ExperimentError(f'nothing could be read: {reasons(tally.skipped)}')
    print(tally.summary())
    for skipped in tally.skipped:
        print(f'skipped {skipped}', file=sys.stderr)
    if args.save or args.attention:
        print(f'written to {args.out_dir}')


def silence_decoders() -> None:
    """OpenCV and FFmpeg write pages about a damaged video; here it is one line."""
    os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')  # FFmpeg's AV_LOG_QUIET
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def reasons(skipped: Sequence[Source | Skipped]) -> str:
    """In one line, the first of many."""
    more = f'; and {len(skipped) - 3} more' if len(skipped) > 3 else ''
    return '; '.join(map(str, skipped[:3])) + more


class Tally:
    """Counts objects by class, and frames.

    Args:
        classes: Names, in the order of the labels.
    """

    def __init__(self, classes: list[str]) -> None:
        self.classes = classes
        self.objects: Counter[str] = Counter()
        self.frames, self.empty = 0, 0
        self.skipped: list[Skipped] = []
        self.start = time.perf_counter()

    def add(self, item: Prediction | Skipped) -> None:
        if isinstance(item, Skipped):
            self.skipped.append(item)
            return
        labels = item.instances.labels.tolist()
        self.objects.update(self.classes[label] for label in labels)
        self.frames += 1
        self.empty += not labels

    def summary(self) -> str:
        """Two lines: what was found, and in how many frames how quickly."""
        found = ', '.join(f'{n} {name}' for name, n in self.objects.most_common())
        seconds = time.perf_counter() - self.start
        pictures = 'picture' if self.frames == 1 else 'pictures'
        return (
            f'found {found or "nothing"}\n'
            f'in {self.frames} {pictures}, {self.empty} of them empty; '
            f'{self.frames / seconds:.1f} a second; {len(self.skipped)} skipped'
        )
