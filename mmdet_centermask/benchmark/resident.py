"""A detector that lives in a process of its own and waits for its turns.

What one mode does to its process, such as keeping freed memory, so stays away from
the others: each is as fast as it is to somebody who runs it alone.
"""

from __future__ import annotations

from typing import NamedTuple

from .new_process import OwnProcess
from .stages import stage_seconds
from .timing import now
from .workload import Ready, Workload, make_ready

# Of this process: one at most.
_resident: list[Ready] = []


class Facts(NamedTuple):
    """What is known of a detector without timing it."""

    shape: tuple[int, int]
    """Height and width of the first picture, before padding."""
    parameters: int
    flops: int
    """Of the first picture."""
    found: int
    """Fewest detections of a picture."""
    score_thr: float | None


class Resident:
    """The first batch of a workload, in a new process; close it when done."""

    def __init__(self, workload: Workload) -> None:
        self._process = OwnProcess()
        self.facts: Facts = self._process.run(_move_in, workload)

    def predict(self) -> None:
        """One call; returns when all is done."""
        self._process.run(_predict)

    def stages(self) -> dict[str, float]:
        """One call, by :func:`~.stages.stage_seconds`."""
        return self._process.run(_stages)

    def close(self) -> None:
        self._process.close()


def _move_in(workload: Workload) -> Facts:
    ready = make_ready(workload)
    _resident.append(ready)
    found = min(len(sample.pred_instances) for sample in ready.calls[0]())
    return Facts(ready.shape, ready.parameters, ready.flops, found, ready.score_thr)


def _predict() -> None:
    _resident[0].calls[0]()
    now()  # waits for a GPU


def _stages() -> dict[str, float]:
    return stage_seconds(_resident[0].model, _resident[0].calls[0])
