"""Small training runs through `tools/train.py`, on data made on the spot."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from PIL import Image
from tiny_centermask import tiny_config

from mmdet_centermask.experiment import build_runner

REPOSITORY = Path(__file__).resolve().parent.parent
TRAIN = REPOSITORY / 'tools' / 'train.py'
BASE = REPOSITORY / 'configs' / 'quickstart'
BASE /= 'centermask-lite_v19-slim-dw_fpn_quickstart.py'
CLASSES = ('disc', 'ring', 'star', 'cross', 'crescent')


def write_data(folder: Path, pictures: int = 10, side: int = 64) -> Path:
    """Write COCO data: noise with one to three rectangles; every fifth has none."""
    rng = np.random.default_rng(0)
    (folder / 'train').mkdir(parents=True)
    (folder / 'annotations').mkdir()
    images, annotations = [], []
    for i in range(pictures):
        pixels = rng.integers(0, 90, (side, side, 3), dtype=np.uint8)
        for _ in range(0 if i % 5 == 4 else 1 + i % 3):
            x, y = (int(v) for v in rng.integers(2, side // 2, 2))
            w, h = (int(v) for v in rng.integers(side // 5, side // 2, 2))
            pixels[y : y + h, x : x + w] = rng.integers(120, 255, 3)
            corners = [x, y, x + w, y, x + w, y + h, x, y + h]
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=i,
                    category_id=1 + len(annotations) % 5,
                    bbox=[x, y, w, h],
                    area=w * h,
                    iscrowd=0,
                    segmentation=[corners],
                )
            )
        name = f'{i}.png'
        Image.fromarray(pixels).save(folder / 'train' / name)
        images.append(dict(id=i, file_name=name, width=side, height=side))
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)]
    coco = dict(images=images, annotations=annotations, categories=categories)
    (folder / 'annotations' / 'train.json').write_text(json.dumps(coco))
    return folder


def write_config(path: Path, data: Path, more: str = '') -> Path:
    """Write the quickstart config for that data: every loss logged, no validation."""
    path.write_text(
        f"""
_base_ = {str(BASE)!r}
train_dataloader = dict(
    batch_size=2,
    num_workers=1,
    dataset=dict(data_root={str(data)!r}, filter_cfg=None),
)
train_cfg = dict(max_iters=8)
val_cfg = val_dataloader = val_evaluator = None
test_cfg = test_dataloader = test_evaluator = None
default_hooks = dict(
    logger=dict(interval=1),
    checkpoint=dict(interval=2, max_keep_ckpts=2),
)
log_processor = dict(window_size=1)
randomness = dict(seed=7)
# Warm, so that one iteration differs from the next.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.5, by_epoch=False, begin=0, end=6)
]
{more}
"""
    )
    return path


def in_process(config: Path, work_dir: Path, **changes) -> Runner:
    """The runner of a config in this process; its model is that of the tiny tests.

    Args:
        config: From :func:`write_config`.
        work_dir: Of the run.
        changes: Fields to change, ``__`` for the dot.
    """
    cfg = Config.fromfile(config)
    cfg.model = tiny_config(5, **{'backbone__norm_eval': False})
    cfg.model.backbone.norm_cfg.requires_grad = True
    cfg.work_dir = str(work_dir)
    cfg.launcher = 'none'
    # One object under one name would write into the folder of the first run.
    cfg.visualizer = dict(type='Visualizer', name=str(work_dir), vis_backends=[])
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.merge_from_dict({key.replace('__', '.'): v for key, v in changes.items()})
    with without_chores():
        return build_runner(cfg)


@contextmanager
def without_chores() -> Iterator[None]:
    """Leave out what takes longer than the training: versions of compilers, and the
    config laid out for people with every checkpoint."""
    env = patch('mmengine.runner.runner.collect_env', dict)
    with env, patch.object(Config, 'pretty_text', ''):
        yield


class Recorder(Hook):
    """Keeps the losses of every iteration; ``look`` may look at the runner."""

    priority = 'VERY_LOW'

    def __init__(self, look=None) -> None:
        self.losses: list[dict[str, float]] = []
        self.seen: list = []
        self.look = look

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append({k: v.item() for k, v in outputs.items()})
        if self.look is not None:
            self.seen.append(self.look(runner))


def train(runner: Runner, look=None, hooks: Sequence[Hook] = ()) -> Recorder:
    """Train; return what every iteration computed."""
    MMLogger.get_current_instance().setLevel(logging.ERROR)
    recorder = Recorder(look)
    for hook in (*hooks, recorder):
        runner.register_hook(hook)
    with without_chores():
        runner.train()
    return recorder


def train_command(config: Path, work_dir: Path, *options: str) -> list[str]:
    """The command line of a training run in this Python."""
    command = [sys.executable, TRAIN, config, '--work-dir', work_dir, *options]
    return [str(part) for part in command]


def environment() -> dict[str, str]:
    """One thread, and the working tree before any installed copy."""
    return dict(os.environ, PYTHONPATH=str(REPOSITORY), OMP_NUM_THREADS='1')


def run(command: Sequence[str], *, fails: bool = False) -> str:
    """Run to the end; return what was printed."""
    done = subprocess.run(
        command,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert (done.returncode != 0) is fails, done.stdout[-6000:]
    return done.stdout


def logged(work_dir: Path) -> dict[int, dict[str, float]]:
    """What every iteration logged, by its number from 1; later runs win."""
    scalars: dict[int, dict[str, float]] = {}
    for file in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in file.read_text().splitlines():
            # A killed process may leave half a line.
            if line.endswith('}'):
                entry = json.loads(line)
                scalars[entry.pop('step')] = entry
    return scalars


def losses(work_dir: Path) -> dict[int, dict[str, float]]:
    """:func:`logged` without times and memory."""
    keep = ('loss', 'lr', 'grad_norm')
    return {
        step: {k: v for k, v in entry.items() if k.startswith(keep)}
        for step, entry in logged(work_dir).items()
    }
