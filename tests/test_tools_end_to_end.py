"""The commands as a person calls them: train, resume, test, on a few pictures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from payload import assert_it_bites, malicious_checkpoint

from mmdet_centermask.safe_checkpoints import load_data

QUICKSTART = 'centermask-lite_v19-slim-dw_fpn_quickstart.py'
TINY = (
    'train_cfg.val_interval=100',
    'train_dataloader.batch_size=2',
    'default_hooks.logger.interval=1',
    # A few iterations are sure of nothing, and COCO skips an empty result.
    'model.test_cfg.bbox.score_thr=0.0',
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def folder(repository, tmp_path_factory) -> Path:
    """Where the commands run: `data` holds a few small quickstart pictures."""
    folder = tmp_path_factory.mktemp('run')
    sizes = ('--train', '6', '--val', '3', '--size', '96')
    done = call(repository, folder, 'make_quickstart_data.py', 'data', *sizes)
    assert done.returncode == 0, done.stdout
    return folder


def call(repository: Path, folder: Path, tool: str, *arguments: str):
    """`python tools/TOOL …` in `folder`, with the package of the working tree."""
    return subprocess.run(
        [sys.executable, str(repository / 'tools' / tool), *arguments],
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': str(repository)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def options(*splits: str) -> list[str]:
    roots = [f'{split}_dataloader.dataset.data_root=data/' for split in splits]
    files = [
        f'{split}_evaluator.ann_file=data/annotations/val.json'
        for split in splits
        if split != 'train'
    ]
    return ['--cfg-options', *roots, *files, *TINY]


def test_train_resume_test(repository, folder):
    def train(iterations: int, *flags: str) -> str:
        words = (QUICKSTART, '--work-dir', 'run', *flags, *options('train', 'val'))
        limit = f'train_cfg.max_iters={iterations}'
        done = call(repository, folder, 'train.py', *words, limit)
        assert done.returncode == 0, done.stdout[-5000:]
        return done.stdout

    assert 'Iter(train) [2/2]' in train(2)
    resumed = train(3, '--resume')
    assert 'Iter(train) [3/3]' in resumed
    assert 'Iter(train) [2/3]' not in resumed

    checkpoint = (folder / 'run' / 'last_checkpoint').read_text()
    words = (QUICKSTART, checkpoint, '--work-dir', 'test', *options('test'))
    done = call(repository, folder, 'test.py', *words)
    assert done.returncode == 0, done.stdout[-5000:]
    (metrics,) = (folder / 'test').glob('*/*.json')
    values = json.loads(metrics.read_text())
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= values.keys()


def test_one_seed_gives_the_same_weights(repository, folder):
    for name in ('first', 'second'):
        words = (QUICKSTART, '--work-dir', name, *options('train', 'val'))
        limits = ('train_cfg.max_iters=2', 'randomness.seed=7')
        done = call(repository, folder, 'train.py', *words, *limits)
        assert done.returncode == 0, done.stdout[-5000:]
    first, second = (
        load_data(folder / name / 'iter_2.pth')['state_dict']
        for name in ('first', 'second')
    )
    assert first.keys() == second.keys()
    differing = [name for name in first if not torch.equal(first[name], second[name])]
    assert differing == []


@pytest.mark.parametrize('tool', ['test.py', 'train.py'])
def test_malicious_checkpoint_is_one_line(repository, folder, tool):
    path = folder / f'{tool}.evil.pth'
    trace = malicious_checkpoint(path)
    if tool == 'test.py':
        words = [QUICKSTART, path.name, *options('test')]
    else:
        words = [QUICKSTART, '--resume', path.name, *options('train', 'val')]
    done = call(repository, folder, tool, *words)
    assert done.returncode == 1
    assert 'Traceback' not in done.stdout
    last = done.stdout.rstrip().splitlines()[-1]
    assert f'{path.name}' in last
    assert 'refused, because its pickle asks for' in last
    assert_it_bites(path, trace)
