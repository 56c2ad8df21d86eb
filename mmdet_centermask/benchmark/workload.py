"""One detector in one mode, with pictures, ready to be timed."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from mmdet.models.detectors import BaseDetector
from mmengine.config import Config

from ..speed import optimize
from .complexity import flops_of, parameters_of
from .detector import build_detector
from .new_process import in_new_process, peak_memory_mb
from .pictures import load_picture, network_shape, noise
from .stock_style import in_stock_style
from .untrained import keep_detections, set_limits, settle

# What `optimize` is told in each mode that uses it.
OPTIMIZED: dict[str, dict[str, Any]] = {
    'fast': {},
    'fast-float32': dict(precision='float32'),
    'fast-compiled': dict(compile=True),
}
MODES = ('default', *OPTIMIZED, 'stock')


class Workload(NamedTuple):
    """What is measured; a new process can be given it."""

    config: str
    """A path."""
    mode: str = 'default'
    """``'default'``: as the config says, eager float32. Those of :data:`OPTIMIZED`:
    what :func:`mmdet_centermask.optimize` makes of it. ``'stock'``: see
    :class:`~.stock_style.StockStyleCenterMask`."""
    checkpoint: str | None = None
    pictures: tuple[str, ...] = ()
    """Files, each a batch of its own, at the size that the config gives them; without
    any, a batch of noise."""
    shape: tuple[int, int] | None = None
    """Height and width of noise; by default the config's test scale decides."""
    batch: int = 1
    """Pictures of noise."""
    detections: int = 50
    """Of each picture."""
    threads: int | None = None
    score_thr: float | None = None
    """Where known from another mode; else it is searched for."""


class Ready(NamedTuple):
    """A detector that waits for its calls."""

    model: BaseDetector
    calls: list[Any]
    """One for each batch; returns the data samples with ``pred_instances``."""
    shape: tuple[int, int]
    """Height and width of the first picture, before padding."""
    parameters: int
    flops: int
    """Of the first picture."""
    score_thr: float | None


def make_ready(workload: Workload) -> Ready:
    """Build the detector, settle what it finds, and only then make it fast."""
    if workload.threads is not None:
        torch.set_num_threads(workload.threads)
    cfg = Config.fromfile(workload.config)
    if workload.mode == 'stock':
        cfg = in_stock_style(cfg)
    model = build_detector(cfg, workload.checkpoint)
    batches = batches_of(workload, cfg)
    if workload.checkpoint is None:
        settle(model, batches[0])
    score_thr = workload.score_thr
    if score_thr is None:
        score_thr = keep_detections(model, batches, workload.detections)
    else:
        set_limits(model, workload.detections, score_thr)
    first = batches[0]
    parameters = parameters_of(model)
    flops = flops_of(partial(model.test_step, first)) // len(first['inputs'])
    if workload.mode in OPTIMIZED:
        model = optimize(model, **OPTIMIZED[workload.mode])
    calls = [torch.no_grad()(partial(model.test_step, data)) for data in batches]
    shape = first['data_samples'][0].img_shape[:2]
    return Ready(model, calls, shape, parameters, flops, score_thr)


def batches_of(workload: Workload, cfg: Config) -> list[dict[str, Any]]:
    """What a data loader would hand out."""
    if workload.pictures:
        return [load_picture(path, cfg) for path in workload.pictures]
    return [noise(workload.shape or network_shape(cfg), workload.batch)]


def memory_of(workload: Workload) -> float | None:
    """Peak memory in MB of a process that builds the detector and predicts, twice."""
    return in_new_process(_predict_twice, workload)


def _predict_twice(workload: Workload) -> float | None:
    for call in 2 * make_ready(workload).calls:
        call()
    return peak_memory_mb()
