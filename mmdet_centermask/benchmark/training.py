"""Two ways to train one model, step by step on the same batches.

Both are trained in turns within one run, each in a process of its own: what else the
machine does hits both, so the ratio of their times holds where the times themselves
wander, and the losses can be compared batch by batch.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import ExitStack, closing
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS, PARAM_SCHEDULERS
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from ..engine.numbered_batch_sampler import number_batches, seed_by_place
from ..engine.randomness import ITERATION, seed_randomness
from .resident import Resident
from .timing import now

SMOOTHED = 20  # iterations that share a line of the table


class Side(NamedTuple):
    """One way to train."""

    model: BaseDetector
    wrapper: OptimWrapper
    schedulers: list[Any]
    batches: Iterator[Any]


class Curve(NamedTuple):
    """What one way did, by iteration."""

    losses: list[float]
    seconds: list[float]
    """Forward and backward pass and update, without loading data."""


def compare_training(
    cfgs: dict[str, Config], iterations: int, seed: int = 0, threads: int | None = None
) -> dict[str, Curve]:
    """Train every config, in turns.

    Args:
        cfgs: By name. They load the same data and start from the same weights.
        iterations: How many batches.
        seed: Of weights, pictures and augmentation.
        threads: Of torch, on a CPU.
    """
    curves = {name: Curve([], []) for name in cfgs}
    with ExitStack() as stack:
        sides = {
            name: stack.enter_context(closing(Resident(build_side, cfg, seed, threads)))
            for name, cfg in cfgs.items()
        }
        for iteration in range(iterations):
            for name, side in sides.items():
                loss, seconds = side.call(step, seed, iteration)
                curves[name].losses.append(loss)
                curves[name].seconds.append(seconds)
    return curves


def step(side: Side, seed: int, iteration: int) -> tuple[float, float]:
    """Train a side on its next batch; see :func:`timed_step`."""
    batch = next(side.batches)
    seed_randomness(seed, ITERATION, 0, iteration)
    return timed_step(side, batch)


def build_side(cfg: Config, seed: int, threads: int | None) -> Side:
    """Model, optimizer, schedule and data as the runner would build them."""
    if threads:
        torch.set_num_threads(threads)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    torch.manual_seed(seed)
    model = MODELS.build(deepcopy(cfg.model))
    model.init_weights()
    if torch.cuda.is_available():
        model.cuda()
    if 'channels_last' in cfg.get('default_hooks', {}):
        model.to(memory_format=torch.channels_last)
    wrapper = build_optim_wrapper(model, deepcopy(cfg.optim_wrapper))
    scale = cfg.get('auto_scale_lr', {})
    if scale.get('enable'):
        for group in wrapper.param_groups:
            group['lr'] *= cfg.train_dataloader.batch_size / scale.base_batch_size
    schedulers = [
        PARAM_SCHEDULERS.build(deepcopy(s), default_args=dict(optimizer=wrapper))
        for s in cfg.get('param_scheduler') or []
    ]
    return Side(model.train(), wrapper, schedulers, batches_of(cfg, seed))


def batches_of(cfg: Config, seed: int) -> Iterator[Any]:
    """Batches as the training loop would load them, but between the steps: processes
    that load the next would take the cores of those that are timed."""
    cfg_loader = dict(cfg.train_dataloader, num_workers=0, persistent_workers=False)
    loader = Runner.build_dataloader(number_batches(cfg_loader), seed=seed)
    seed_by_place(loader.dataset, seed)
    while True:
        yield from loader


def timed_step(side: Side, batch: Any) -> tuple[float, float]:
    """Take one step; return the loss and the seconds it took."""
    start = now()
    losses = side.model.train_step(batch, side.wrapper)
    seconds = now() - start
    for scheduler in side.schedulers:
        scheduler.step()
    return float(losses['loss']), seconds


def describe(curves: dict[str, Curve]) -> str:
    """A table of times, and one of losses; the first curve is the base of ratios."""
    base = statistics.median(next(iter(curves.values())).seconds)
    lines = [f'{"step":<28}{"median s":>10}{"quartiles":>18}{"ratio":>8}']
    for name, curve in curves.items():
        low, median, high = statistics.quantiles(curve.seconds, n=4)
        spread = f'{low:.3f} .. {high:.3f}'
        lines.append(f'{name:<28}{median:>10.3f}{spread:>18}{base / median:>7.2f}x')
    lines += [
        '',
        f'{"mean loss of iterations":<28}' + ''.join(map('{:>26}'.format, curves)),
    ]
    count = len(next(iter(curves.values())).losses)
    for start in range(0, count, SMOOTHED):
        stop = min(start + SMOOTHED, count)
        means = [statistics.fmean(c.losses[start:stop]) for c in curves.values()]
        lines.append(
            f'{f"{start + 1} to {stop}":<28}' + ''.join(map('{:>26.4f}'.format, means))
        )
    return '\n'.join(lines)


def plot(curves: dict[str, Curve], path: str) -> None:
    """Draw the losses of both over the iterations into a PNG."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    for name, curve in curves.items():
        axes.plot(range(1, len(curve.losses) + 1), curve.losses, label=name, alpha=0.7)
    axes.set(xlabel='iteration', ylabel='loss', ylim=(0, None))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
