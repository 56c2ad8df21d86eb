"""Several configs learn for the same CPU minutes: arithmetic by hand, one tiny race."""

from __future__ import annotations

import csv
import json
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from pycocotools import mask as coco_mask
from tiny_centermask import CONFIGS, tiny_config

from mmdet_centermask.benchmark.cpu_budget_hook import CPUBudgetHook
from mmdet_centermask.benchmark.learning import (
    Race,
    every_nth,
    prepare,
    run_race,
    schedule_length,
)
from mmdet_centermask.benchmark.learning_report import (
    learning_plot,
    learning_table,
    write_report,
)
from mmdet_centermask.benchmark.markdown import markdown_table
from mmdet_centermask.experiment import ExperimentError

RACERS = sorted((CONFIGS / 'learning').glob('*.py'))


def result(name: str, **numbers) -> dict:
    curve = [
        dict(iteration=5, cpu_minutes=1.5, box_ap=0.1, mask_ap=0.05),
        dict(iteration=10, cpu_minutes=3.0, box_ap=0.2, mask_ap=0.25),
    ]
    full = dict(config=name, iterations=10, cpu_minutes=3.04, box_ap=0.2, mask_ap=0.25)
    return full | dict(latency_ms=71.6, curve=curve) | numbers


class FakeRunner:
    """Counts what a hook asks of a runner; a validation takes 100 seconds."""

    def __init__(self, ticks: list[float]) -> None:
        self.ticks = iter(ticks)
        self.time = 0.0
        self.steps = 0
        self.validated_after: list[int] = []
        self.train_loop = SimpleNamespace(stop_training=False)
        self.val_loop = SimpleNamespace(run=self.validate)
        self.param_schedulers = [SimpleNamespace(step=self.step)]

    def step(self) -> None:
        self.steps += 1

    def validate(self) -> None:
        self.time += 100
        numbers = {'coco/bbox_mAP': 0.3, 'coco/segm_mAP': 0.2}
        self.hook.after_val_epoch(self, numbers)

    def train(self, hook: CPUBudgetHook) -> list[int]:
        """Steps of the schedule after each iteration."""
        self.hook, steps = hook, []
        hook.before_train(self)
        while not self.train_loop.stop_training:
            self.time += next(self.ticks)
            hook.after_train_iter(self)
            steps.append(self.steps)
        return steps


def test_schedule_validations_and_end_follow_the_time_of_training():
    """Iterations of 3, 2, 4 and 3 seconds; 10 are to be spent, validation is free."""
    runner = FakeRunner([3.0, 2.0, 4.0, 3.0, 9.9])
    hook = CPUBudgetHook(10, points=2, schedule=20, clock=lambda: runner.time)
    assert runner.train(hook) == [6, 10, 18, 20]
    assert (hook.iterations, hook.spent) == (4, 12.0)
    assert hook.curve == [(2, 5 / 60, 0.3, 0.2), (4, 12 / 60, 0.3, 0.2)]


def test_an_iteration_beyond_the_budget_is_the_last():
    runner = FakeRunner([50.0, 1.0])
    hook = CPUBudgetHook(10, points=5, schedule=100, clock=lambda: runner.time)
    assert runner.train(hook) == [100]
    assert len(hook.curve) == 1


def test_a_validation_without_findings_has_an_ap_of_zero():
    hook = CPUBudgetHook(1, 1, 1, clock=lambda: 0.0)
    hook.after_val_epoch(None, {})
    assert hook.curve == [(0, 0.0, 0.0, 0.0)]


def test_only_a_schedule_in_iterations_can_follow():
    cfg = Config.fromfile(CONFIGS / '_base_' / 'schedules' / 'adamw_1000.py')
    assert schedule_length(cfg) == 1000
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=12)
    with pytest.raises(ExperimentError, match=r"train_cfg\.type='EpochBased"):
        schedule_length(cfg)


def test_every_third_picture_with_its_instances():
    annotations = dict(
        images=[dict(id=i) for i in (7, 8, 9, 10)],
        annotations=[dict(image_id=i) for i in (7, 8, 10, 10, 9)],
        categories=[1],
    )
    part = every_nth(annotations, 3)
    assert [image['id'] for image in part['images']] == [7, 10]
    assert [a['image_id'] for a in part['annotations']] == [7, 10, 10]
    assert part['categories'] == [1]
    assert every_nth(annotations, 1) == annotations


@pytest.mark.parametrize('path', RACERS, ids=lambda path: path.stem)
def test_racers_differ_in_nothing_but_the_detector(path):
    cfg = Config.fromfile(path)
    nuclei = Config.fromfile(
        CONFIGS / 'nuclei' / 'centermask-lite_v19-slim_fpn_nuclei.py'
    )
    for key in (
        'train_dataloader',
        'val_dataloader',
        'val_evaluator',
        'param_scheduler',
        'train_cfg',
    ):
        assert cfg[key] == nuclei[key], key
    assert cfg.train_dataloader.batch_size == 4
    wrapper = deepcopy(cfg.optim_wrapper)
    wrapper.paramwise_cfg.pop('bypass_duplicate', None)
    assert wrapper == nuclei.optim_wrapper
    assert cfg.model.backbone.get('init_cfg') is None
    assert not cfg.model.backbone.get('norm_eval', False)
    assert cfg.model.backbone.get('frozen_stages', -1) == -1
    test_cfg = cfg.model.test_cfg
    keeps = {test_cfg.get(k, test_cfg).get('max_per_img') for k in ('bbox', 'rcnn')}
    assert 400 in keeps


def test_table_by_hand():
    table = markdown_table(['a', 'bc'], [['x', '1'], ['yyy', '22']])
    assert table.splitlines() == [
        '| a   | bc |',
        '| --- | -: |',
        '| x   |  1 |',
        '| yyy | 22 |',
    ]


def test_table_of_results():
    rows = [result('one'), dict(config='two', error='ValueError: no')]
    assert learning_table(rows).splitlines()[2:] == [
        '| one    |             10 |         3.0 |  0.200 |   0.250 |         72 |',
        '| two    | ValueError: no |             |        |         |            |',
    ]


def test_curve_starts_at_nothing():
    (axes,) = learning_plot([result('one'), dict(config='two', error='x')]).axes
    (line,) = axes.lines
    assert line.get_xydata().tolist() == [[0, 0], [1.5, 0.05], [3.0, 0.25]]


def test_report_holds_every_validation(tmp_path):
    write_report([result('one'), result('two')], tmp_path)
    with (tmp_path / 'learning.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [(r['config'], r['iteration'], r['mask_ap']) for r in rows] == [
        ('one', '5', '0.05'),
        ('one', '10', '0.25'),
        ('two', '5', '0.05'),
        ('two', '10', '0.25'),
    ]
    assert json.loads((tmp_path / 'learning.json').read_text())[1]['config'] == 'two'
    assert cv2.imread(str(tmp_path / 'learning.png')).shape[0] > 300


def test_two_of_a_name_are_refused(tmp_path):
    with pytest.raises(ExperimentError, match='same name'):
        run_race(['a/x.py', 'b/x.py'], Race(1), tmp_path)


def bright_square(folder: Path, number: int) -> None:
    """COCO data: the same square on every picture."""
    (folder / 'images').mkdir(parents=True)
    mask = np.zeros((64, 64), np.uint8, order='F')
    mask[16:48, 16:48] = 1
    pixels = np.where(mask[..., None] > 0, 230, 20).astype(np.uint8).repeat(3, 2)
    rle = coco_mask.encode(mask)
    rle['counts'] = rle['counts'].decode()
    images, annotations = [], []
    for i in range(1, number + 1):
        cv2.imwrite(str(folder / 'images' / f'{i}.png'), pixels)
        images.append(dict(id=i, file_name=f'{i}.png', height=64, width=64))
        annotations.append(
            dict(id=i, image_id=i, category_id=1, bbox=[16, 16, 32, 32], area=1024)
            | dict(segmentation=rle, iscrowd=0)
        )
    truth = dict(images=images, annotations=annotations)
    truth['categories'] = [dict(id=1, name='nucleus')]
    (folder / 'truth.json').write_text(json.dumps(truth))


def on_bright_squares(folder: Path) -> Config:
    """A config of the race whose splits are four such pictures below `folder`."""
    bright_square(folder / 'data', 4)
    cfg = Config.fromfile(RACERS[0])
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.update(
            data_root=f'{folder}/data/', ann_file='truth.json'
        )
    cfg.val_evaluator.ann_file = f'{folder}/data/truth.json'
    cfg.test_evaluator = cfg.val_evaluator
    return cfg


@pytest.mark.parametrize('amp', [False, True])
def test_mixed_precision_where_asked_for(tmp_path, amp):
    prepared = prepare(on_bright_squares(tmp_path), Race(minutes=1, amp=amp), tmp_path)
    mixed = prepared.optim_wrapper.type == 'MixedPrecisionOptimWrapper'
    assert mixed is amp is ('channels_last' in prepared.default_hooks)


@pytest.mark.slow
def test_a_race_of_seconds(tmp_path):
    """One learns, one cannot; a second call trains nothing."""
    cfg = on_bright_squares(tmp_path)
    cfg.model = tiny_config(1)
    cfg.model.backbone.norm_cfg.requires_grad = True
    cfg.model.backbone.norm_eval = False
    cfg.dump(tmp_path / 'tiny.py')
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
    cfg.dump(tmp_path / 'broken.py')
    race = Race(minutes=0.05, points=2, curve_every=2)
    paths = [str(tmp_path / 'tiny.py'), str(tmp_path / 'broken.py')]
    tiny, broken = run_race(paths, race, tmp_path / 'out')
    assert 'train_cfg.type' in broken['error']
    half, full = tiny['curve']
    assert 0.025 <= half['cpu_minutes'] < 0.05 <= full['cpu_minutes']
    assert tiny['cpu_minutes'] == full['cpu_minutes']
    assert tiny['iterations'] == full['iteration'] > half['iteration']
    assert tiny['latency_ms'] > 0
    checkpoint = torch.load(tmp_path / 'out/tiny/final.pth', weights_only=True)
    assert checkpoint['state_dict'].keys() and 'optimizer' not in checkpoint
    assert run_race(paths[:1], race, tmp_path / 'out') == [tiny]
    (other,) = run_race(paths[:1], race._replace(amp=True), tmp_path / 'out')
    assert 'tiny/result.json is of another race' in other['error']
