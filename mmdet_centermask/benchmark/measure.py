"""Time, memory and work of a detector in one mode or several, in one run."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.device import get_device

from ..speed.precision import choose_precision
from .any_config import find_any_config
from .conv_peak import conv_peaks
from .hardware import hardware
from .resident import Resident
from .stages import NETWORK, STAGES, stage_seconds
from .timing import now, quartiles, take_turns
from .workload import OPTIMIZED, Ready, Workload, make_ready, memory_of

Row = dict[str, Any]
Stages = list[dict[str, float]]


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


def benchmark(
    configs: Sequence[str], workload: Workload, modes: Sequence[str], rounds: int
) -> dict[str, Any]:
    """What :mod:`.measure_report` prints.

    Args:
        configs: Names or paths.
        workload: The same for all, but for its ``config``.
        modes: Out of ``MODES``.
        rounds: Calls that count.

    Returns:
        ``machine``, ``conv_peaks`` and the ``rows`` of :func:`measure`.

    Raises:
        FileNotFoundError: A config is not there.
        ExperimentError: A config has no such mode, or tells no size.
    """
    paths = [find_any_config(name) for name in configs]
    if workload.threads is not None:
        torch.set_num_threads(workload.threads)
    peaks = conv_peaks(torch.device(get_device()))
    rows: list[Row] = []
    for path in paths:
        rows += measure(workload._replace(config=path), modes, rounds, peaks)
    return dict(machine=hardware(), conv_peaks=peaks, rows=rows)


def measure(
    workload: Workload, modes: Sequence[str], rounds: int, peaks: Mapping[str, float]
) -> list[Row]:
    """A row of numbers for each mode of a detector, the modes taking turns, each in a
    process of its own.

    Args:
        workload: Its ``mode`` does not matter.
        modes: Out of ``MODES``; the first is what the others are compared with.
        rounds: Calls of each mode that count, and then as many with stages.
        peaks: Of :func:`~.conv_peak.conv_peaks`.

    Returns:
        For each mode, among what :class:`Workload` says, ``parameters``, ``flops`` of
        a picture, ``memory_mb``, ``found`` (fewest detections of a picture),
        ``ms`` of a batch (three quartiles), ``fps``, ``stages_ms`` (medians) and what
        :func:`network_share` and :func:`ratio` say.
    """
    with ExitStack() as stack:
        residents: dict[str, Resident] = {}
        facts: dict[str, Facts] = {}
        for mode in modes:
            resident = Resident(make_ready, workload._replace(mode=mode))
            residents[mode] = stack.enter_context(closing(resident))
            facts[mode] = resident.call(facts_of)
            # The first mode's threshold serves all: they see the same candidates.
            workload = workload._replace(score_thr=facts[mode].score_thr)
        seconds = take_turns(
            {mode: partial(r.call, predict) for mode, r in residents.items()}, rounds
        )
        stages = {
            mode: [r.call(stages_of) for _ in range(rounds)]
            for mode, r in residents.items()
        }
    rows = []
    for mode in modes:
        row = describe(workload._replace(mode=mode), facts[mode])
        row |= summary(seconds[mode], stages[mode], workload.batch)
        row |= network_share(
            row['stages_ms'],
            row['flops'] * workload.batch,
            peaks[number_format(mode)],
        )
        row['ratio'] = ratio(seconds[modes[0]], seconds[mode])
        row['memory_mb'] = memory_of(workload._replace(mode=mode))
        rows.append(row)
    return rows


def facts_of(ready: Ready) -> Facts:
    """Of the first batch."""
    found = min(len(sample.pred_instances) for sample in ready.calls[0]())
    return Facts(ready.shape, ready.parameters, ready.flops, found, ready.score_thr)


def predict(ready: Ready) -> None:
    """The first batch; returns when all is done."""
    ready.calls[0]()
    now()  # waits for a GPU


def stages_of(ready: Ready) -> dict[str, float]:
    """The first batch, by :func:`~.stages.stage_seconds`."""
    return stage_seconds(ready.model, ready.calls[0])


def number_format(mode: str) -> str:
    """Of the network's convolutions."""
    if mode not in OPTIMIZED:
        return 'float32'
    wanted = OPTIMIZED[mode].get('precision', 'auto')
    chosen = choose_precision(torch.device(get_device()), wanted)
    return str(chosen.dtype)[len('torch.') :]


def describe(workload: Workload, facts: Facts) -> Row:
    """What is known without timing."""
    return dict(
        config=Path(workload.config).stem,
        mode=workload.mode,
        checkpoint=workload.checkpoint,
        batch=workload.batch,
        **facts._asdict(),
    )


def summary(seconds: list[float], stages: Stages, batch: int) -> Row:
    """Quartiles of the calls, frames per second, median of each stage."""
    ms = [1000 * value for value in quartiles(seconds)]
    return dict(
        ms=ms,
        fps=1000 * batch / ms[1],
        stages_ms={
            name: 1000 * statistics.median(call[name] for call in stages)
            for name in STAGES
            if all(name in call for call in stages)
        },
    )


def network_share(stages_ms: Mapping[str, float], flops: int, peak: float) -> Row:
    """How much of the time is the network's, and how near that is to the peak.

    Args:
        stages_ms: Of a batch.
        flops: Of a batch, a multiply-add being one.
        peak: Multiply-adds per second.

    Returns:
        ``network_ms``; ``outside``, the share of all stages' time outside the network;
        ``of_peak``, flops / (network time x peak).
    """
    network = sum(stages_ms.get(name, 0.0) for name in NETWORK)
    return dict(
        network_ms=network,
        outside=1 - network / sum(stages_ms.values()),
        of_peak=flops / (network / 1000 * peak),
    )


def ratio(reference: list[float], seconds: list[float]) -> float:
    """How many times as fast as the reference, by the medians."""
    return statistics.median(reference) / statistics.median(seconds)
