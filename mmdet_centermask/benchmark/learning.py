"""Several configs learn from scratch for the same CPU minutes.

Each config is trained until the budget is spent, with its schedule stretched over
it, validated on the way and tested at the end; each in a process of its own, on one
thread.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from ..experiment import ExperimentError, check_data_files, enable_amp
from .cpu_budget_hook import CPUBudgetHook, average_precisions
from .hardware import hardware
from .new_process import in_new_process, one_line

RESULT = 'result.json'
CHECKPOINT = 'final.pth'
TIMED_PICTURES = 20
ENDLESS = 10**6  # iterations that no budget pays


class Race(NamedTuple):
    """What all configs have in common."""

    minutes: float
    """CPU minutes of training iterations, for each config."""
    points: int = 5
    """Validations on the way, equally spaced; the last at the end."""
    curve_every: int = 3
    """Validate on every third picture; the test at the end sees all."""
    amp: bool = False
    """Train in mixed precision; tests and latency stay in float32."""


def run_race(configs: Sequence[str], race: Race, out: Path) -> list[dict[str, Any]]:
    """Train one config after the other and return their results, in that order.

    A config whose ``result.json`` is in its folder below ``out`` is not trained again;
    if that is of another race, its row is an error.

    Args:
        configs: Paths. The names of the files tell them apart.
        race: The same for all.
        out: A folder for each config goes in here.

    Returns:
        For each config what :func:`train` writes, or ``config`` and ``error``.

    Raises:
        ExperimentError: Two configs share a name.
    """
    names = [Path(path).stem for path in configs]
    if len(set(names)) < len(names):
        raise ExperimentError(f'configs={names} hold the same name twice')
    os.environ['OMP_NUM_THREADS'] = '1'  # read by the processes to come
    results: list[dict[str, Any]] = []
    for name, path in zip(names, configs, strict=True):
        file = out / name / RESULT
        try:
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                in_new_process(train, path, race, file.parent)
            result = json.loads(file.read_text())
            if Race(**result['race']) != race:
                raise ExperimentError(f'{file} is of another race; give another --out')
            results.append(result)
        except Exception as error:  # the other configs go on
            results.append(dict(config=name, error=one_line(error)))
    return results


def train(path: str, race: Race, out: Path) -> None:
    """Train, test and write ``result.json``: what a table or plot wants to know.

    Args:
        path: Of the config.
        race: What all configs have in common.
        out: Folder of this config.
    """
    torch.set_num_threads(1)
    started = time.time()
    cfg = Config.fromfile(path)
    hook = CPUBudgetHook(race.minutes * 60, race.points, schedule_length(cfg))
    runner = Runner.from_cfg(prepare(cfg, race, out))
    runner.register_hook(hook)
    runner.train()
    wall_minutes = (time.time() - started) / 60
    runner.save_checkpoint(
        str(out), CHECKPOINT, save_optimizer=False, save_param_scheduler=False
    )
    print(f'{out.name}: checkpoint {out / CHECKPOINT}', flush=True)
    box_ap, mask_ap = average_precisions(runner.test())
    result = dict(
        config=Path(path).stem,
        iterations=hook.iterations,
        cpu_minutes=hook.spent / 60,
        wall_minutes=wall_minutes,
        box_ap=box_ap,
        mask_ap=mask_ap,
        latency_ms=latency_ms(runner),
        curve=[point._asdict() for point in hook.curve],
        race=race._asdict(),
        hardware=hardware(),
    )
    (out / RESULT).write_text(json.dumps(result, indent=1))


def schedule_length(cfg: Config) -> int:
    """Iterations that the config's schedule was made for.

    Raises:
        ExperimentError: It counts epochs.
    """
    if 'max_iters' not in cfg.train_cfg:
        raise ExperimentError(
            f'train_cfg.type={cfg.train_cfg.get("type")!r} has no max_iters; only a '
            'schedule in iterations can follow CPU minutes'
        )
    return cfg.train_cfg.max_iters


def prepare(cfg: Config, race: Race, out: Path) -> Config:
    """The config for a training of one process that a :class:`CPUBudgetHook` leads.

    Raises:
        ExperimentError: Data is missing.
    """
    check_data_files(cfg, ('train', 'val', 'test'))
    if race.amp:
        enable_amp(cfg)
    cfg.train_cfg.update(max_iters=ENDLESS, val_interval=ENDLESS)
    # The hook sets the schedule; the end of the training saves the checkpoint.
    cfg.default_hooks.update(param_scheduler=None, checkpoint=None)
    for split in ('train', 'val', 'test'):
        # In this process, where its CPU time is counted.
        cfg[f'{split}_dataloader'].update(num_workers=0, persistent_workers=False)
    cfg.work_dir = str(out)
    cfg.launcher = 'none'
    cfg.randomness = dict(seed=0)
    cfg.default_hooks.logger.interval = 20
    use_part_of_validation(cfg, race.curve_every, out / 'curve.json')
    return cfg


def use_part_of_validation(cfg: Config, every: int, path: Path) -> None:
    """Validate on every n-th picture, which ``path`` is going to list."""
    dataset = cfg.val_dataloader.dataset
    source = Path(dataset.get('data_root') or '', dataset.ann_file)
    path.write_text(json.dumps(every_nth(json.loads(source.read_text()), every)))
    dataset.ann_file = cfg.val_evaluator.ann_file = str(path.absolute())


def every_nth(annotations: dict[str, Any], every: int) -> dict[str, Any]:
    """COCO's annotations of the first picture, the first after ``every``, ..."""
    images = annotations['images'][::every]
    kept = {image['id'] for image in images}
    instances = [a for a in annotations['annotations'] if a['image_id'] in kept]
    return dict(annotations, images=images, annotations=instances)


@torch.no_grad()
def latency_ms(runner: Runner) -> float:
    """Median CPU milliseconds of one picture of the test set, on one thread.

    From the picture as loaded to masks of its size; the first warms up.
    """
    model = runner.model.eval()
    times = []
    for data in islice(runner.test_loop.dataloader, TIMED_PICTURES + 1):
        start = time.process_time()
        model.test_step(data)
        times.append(time.process_time() - start)
    return statistics.median(times[1:]) * 1000
