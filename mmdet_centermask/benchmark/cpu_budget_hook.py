"""CPU time as the length of a training.

Wall time depends on what else a machine does, and iterations of two detectors do not
cost the same. The time that the process itself spends on a CPU is neither.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from mmengine.hooks import Hook
from mmengine.runner import Runner


class CurvePoint(NamedTuple):
    """A validation on the way."""

    iteration: int
    cpu_minutes: float
    box_ap: float
    mask_ap: float


class CPUBudgetHook(Hook):
    """Spend CPU seconds on training: schedule, validations and end follow them.

    Loading of data counts where it happens in this process (``num_workers=0``), and
    so do the CPU seconds of every thread; validation does not count. The training
    ends with the first iteration that reaches the budget.

    Args:
        budget: CPU seconds.
        points: Validations, after equal parts of the budget.
        schedule: Steps of the parameter schedulers, all taken by the end.
        clock: Seconds, of this process's CPU time by default.
    """

    priority = 'VERY_LOW'  # after the other hooks, whose work belongs to training

    def __init__(
        self,
        budget: float,
        points: int,
        schedule: int,
        clock: Callable[[], float] = time.process_time,
    ) -> None:
        self.budget = budget
        self.points = points
        self.schedule = schedule
        self.clock = clock
        self.iterations = 0
        self.spent = 0.0
        """CPU seconds of all iterations until now."""
        self.curve: list[CurvePoint] = []
        self._steps = 0
        self._since = 0.0

    def before_train(self, runner: Runner) -> None:
        self._since = self.clock()

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        self.iterations += 1
        self.spent += self.clock() - self._since
        done = min(1.0, self.spent / self.budget)
        while self._steps < int(done * self.schedule):
            self._steps += 1
            for scheduler in runner.param_schedulers:
                scheduler.step()
        if len(self.curve) < int(done * self.points):
            runner.val_loop.run()
        runner.train_loop.stop_training = done == 1
        self._since = self.clock()

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        box_ap, mask_ap = average_precisions(metrics or {})
        minutes = self.spent / 60
        self.curve.append(CurvePoint(self.iterations, minutes, box_ap, mask_ap))


def average_precisions(metrics: dict[str, float]) -> tuple[float, float]:
    """Box and mask AP among a COCO metric's numbers; 0 where nothing was found."""
    return metrics.get('coco/bbox_mAP', 0.0), metrics.get('coco/segm_mAP', 0.0)
