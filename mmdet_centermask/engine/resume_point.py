"""Where an interrupted run can go on: the newest checkpoint that is whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ..safe_checkpoints import load_weights_only, reason_of


class ResumePoint(NamedTuple):
    """A complete checkpoint of a training run."""

    path: Path
    iteration: int
    seed: int | None


class IncompleteCheckpoint(ValueError):
    """A file that training cannot go on from."""


def read_resume_point(path: str | Path) -> ResumePoint:
    """Return what is needed to go on from ``path``, without reading its tensors.

    Raises:
        IncompleteCheckpoint: It does not open, as a file cut off anywhere, or lacks
            iteration, weights or optimizer. The message is one line with the reason.
    """
    path = Path(path)
    try:
        checkpoint = load_weights_only(path, 'cpu', mmap=True)
    # What a broken file raises depends on where it is broken.
    except Exception as error:
        raise IncompleteCheckpoint(
            f'{path} cannot be read: {reason_of(error)}'
        ) from error
    for key in ('meta', 'state_dict', 'optimizer'):
        if key not in checkpoint:
            raise IncompleteCheckpoint(f'{path} has no {key!r}')
    meta = checkpoint['meta']
    return ResumePoint(path, meta['iter'], meta.get('seed'))


def find_resume_point(work_dir: str | Path) -> ResumePoint | None:
    """Return the newest complete checkpoint that a run left behind.

    Args:
        work_dir: Of the run. The file that ``last_checkpoint`` in it names counts too,
            wherever that lies; it need not be there, nor be right.
    """
    points = []
    for path in checkpoint_files(Path(work_dir)):
        with suppress(IncompleteCheckpoint):
            points.append(read_resume_point(path))
    return max(points, key=lambda point: point.iteration, default=None)


def checkpoint_files(work_dir: Path) -> Iterator[Path]:
    """The files that a run may have meant to be resumed from."""
    yield from sorted(work_dir.glob('iter_*.pth'))
    yield from sorted(work_dir.glob('epoch_*.pth'))
    pointer = work_dir / 'last_checkpoint'
    if pointer.is_file() and (target := pointer.read_text().strip()):
        yield Path(target)
