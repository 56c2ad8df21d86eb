"""A progress bar over frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from .frames import frame_count
from .prediction import Prediction
from .sources import Skipped, Source


def with_progress(
    stream: Iterable[Prediction | Skipped], sources: Sequence[Source | Skipped]
) -> Iterator[Prediction | Skipped]:
    """`stream` behind a bar as long as the sources promise; endless for a camera.

    It ends at 100 % also where a damaged video held fewer frames than it promised.
    """
    counts = [frame_count(source) for source in sources]
    known = [count for count in counts if count is not None]
    total = sum(known) if len(known) == len(counts) else None
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns) as bar:
        task = bar.add_task('Inference', total=total)
        for item in stream:
            yield item
            bar.advance(task)
        bar.update(task, total=bar.tasks[task].completed)
