"""Runtimes side by side on the same pictures: milliseconds and average precision."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ..speed import optimize
from .accuracy import average_precisions
from .int8 import INT8
from .parity import TorchPredictor
from .predict import Predictor
from .trained import TrainedDetector


class Engine(NamedTuple):
    """One row of the table."""

    name: str
    predictor: Predictor | TorchPredictor


class Result(NamedTuple):
    """What an engine has shown."""

    name: str
    milliseconds: float
    """Median over pictures and rounds, from network input to pasted masks."""

    speedup: float
    """The first engine's time over this one's."""

    box_ap: float | None
    mask_ap: float | None


def engines_of(trained: TrainedDetector, folder: Path, threads: int) -> list[Engine]:
    """All that this machine can run: PyTorch first, then the exported files."""
    import openvino

    torch.set_num_threads(threads)
    exported = Predictor(folder, threads=threads)
    engines = [
        Engine('eager', TorchPredictor(trained.model, exported.info)),
        Engine('fast', TorchPredictor(optimize(trained.model), exported.info)),
        Engine('onnxruntime', exported),
    ]
    capabilities = openvino.Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
    for precision in ('f32', 'bf16'):
        if precision == 'f32' or 'BF16' in capabilities:
            predictor = Predictor(
                folder, 'openvino', precision=precision, threads=threads
            )
            engines.append(Engine(f'openvino {precision}', predictor))
    if (folder / INT8).exists():
        for runtime in ('onnxruntime', 'openvino'):
            predictor = Predictor(folder, runtime, INT8, threads=threads)
            engines.append(Engine(f'{runtime} int8', predictor))
    return engines


def measure(
    engines: Sequence[Engine],
    pictures: Sequence[np.ndarray],
    rounds: int,
    precisions: Sequence[dict[str, float]] | None = None,
) -> list[Result]:
    """Time every engine on every picture, in turn, after a round that does not count.

    Args:
        engines: The first is what the others are compared with.
        pictures: RGB.
        rounds: How often each picture is shown.
        precisions: AP of each engine, as :func:`~.accuracy.average_precisions` says.
    """
    times: list[list[float]] = [[] for _ in engines]
    for counted in range(rounds + 1):
        for picture in pictures:
            image, scale = engines[0].predictor.prepare(picture)
            for own, engine in zip(times, engines, strict=True):
                start = time.perf_counter()
                engine.predictor.find(image, scale, picture.shape[:2], 0.0)
                if counted:
                    own.append(1000 * (time.perf_counter() - start))
    medians = [statistics.median(own) for own in times]
    results = []
    for i, (engine, median) in enumerate(zip(engines, medians, strict=True)):
        aps = precisions[i] if precisions else {}
        results.append(
            Result(
                engine.name,
                median,
                medians[0] / median,
                aps.get('coco/bbox_mAP'),
                aps.get('coco/segm_mAP'),
            )
        )
    return results


def precisions_of(
    engines: Sequence[Engine], trained: TrainedDetector, limit: int | None
) -> list[dict[str, float]]:
    """AP of each engine on the config's test pictures."""
    return [
        average_precisions(engine.predictor, trained.config, limit)
        for engine in engines
    ]


def as_table(results: Sequence[Result]) -> str:
    """A Markdown table."""
    lines = [
        '| | ms a picture | speed | box AP | mask AP |',
        '|---|---|---|---|---|',
    ]
    for name, ms, speedup, *aps in results:
        cells = ['-' if ap is None else f'{ap:.3f}' for ap in aps]
        lines.append(f'| {name} | {ms:.0f} | {speedup:.2f} x | {" | ".join(cells)} |')
    return '\n'.join(lines)
