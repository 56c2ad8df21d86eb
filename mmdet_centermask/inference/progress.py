"""A progress bar over frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.progress import track

from .frames import frame_count
from .prediction import Prediction
from .sources import Skipped, Source


def with_progress(
    stream: Iterable[Prediction | Skipped], sources: Sequence[Source | Skipped]
) -> Iterable[Prediction | Skipped]:
    """`stream` behind a bar as long as the sources promise; endless for a camera."""
    counts = [frame_count(source) for source in sources]
    known = [count for count in counts if count is not None]
    total = sum(known) if len(known) == len(counts) else None
    return track(stream, description='Inference', total=total)
