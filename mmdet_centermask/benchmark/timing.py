"""Seconds of calls that take turns, and what a list of seconds says."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch


class Quartiles(NamedTuple):
    """Half of the calls lie between the outer two."""

    lower: float
    median: float
    upper: float


def quartiles(values: list[float]) -> Quartiles:
    """25th, 50th and 75th percentile, linear between neighbours."""
    return Quartiles(*np.percentile(values, [25, 50, 75]).tolist())


def now() -> float:
    """Seconds, with everything done that was asked of a GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def take_turns(
    calls: Mapping[str, Callable[[], Any]],
    rounds: int,
    warm_up: int = 2,
    clock: Callable[[], float] = now,
) -> dict[str, list[float]]:
    """Seconds of each call in each round.

    A round runs every call once. What slows the machine down for a while, such as heat
    or other work, so hits all of them.

    Args:
        calls: By name.
        rounds: That count.
        warm_up: Rounds before, that do not.
        clock: Seconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(-warm_up, rounds):
        for name, call in calls.items():
            start = clock()
            call()
            if turn >= 0:
                seconds[name].append(clock() - start)
    return seconds
