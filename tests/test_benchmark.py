"""Time, memory and work of detectors: arithmetic by hand, tiny detectors for real."""

from __future__ import annotations

import json
import operator
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from tiny_centermask import CONFIGS, LITE, talkative, tiny_config, tiny_model
from torch import nn

from mmdet_centermask.benchmark import conv_peak
from mmdet_centermask.benchmark.any_config import find_any_config
from mmdet_centermask.benchmark.complexity import flops_of, parameters_of
from mmdet_centermask.benchmark.detector import build_detector, without_pretrained
from mmdet_centermask.benchmark.measure import (
    network_share,
    number_format,
    ratio,
    summary,
)
from mmdet_centermask.benchmark.measure_report import speed_table, stage_table
from mmdet_centermask.benchmark.new_process import in_new_process, peak_memory_mb
from mmdet_centermask.benchmark.pictures import network_shape, noise
from mmdet_centermask.benchmark.resident import Resident
from mmdet_centermask.benchmark.stages import StageClock, stage_seconds
from mmdet_centermask.benchmark.stock_style import in_stock_style
from mmdet_centermask.benchmark.timing import quartiles, take_turns
from mmdet_centermask.benchmark.untrained import (
    highest_enough,
    keep_detections,
    set_limits,
    settle,
)
from mmdet_centermask.experiment import ExperimentError

MODELS_FOLDER = CONFIGS / '_base_' / 'models'


class Ticks:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time

    def work(self, seconds: float) -> None:
        self.time += seconds


def test_quartiles_by_hand():
    assert quartiles([4.0, 1.0, 3.0, 2.0]) == (1.75, 2.5, 3.25)
    assert quartiles([5.0]) == (5.0, 5.0, 5.0)


def test_calls_take_turns_and_warm_up_does_not_count():
    clock, order = Ticks(), []

    def call(name: str, seconds: list[float]):
        def run() -> None:
            order.append(name)
            clock.work(seconds.pop(0))

        return run

    calls = dict(a=call('a', [9, 1, 2]), b=call('b', [8, 3, 4]))
    assert take_turns(calls, rounds=2, warm_up=1, clock=clock) == dict(
        a=[1, 2], b=[3, 4]
    )
    assert order == ['a', 'b'] * 3


def test_ratio_of_medians():
    assert ratio([2.0, 4.0, 60.0], [1.0, 2.0, 1.0]) == 4.0


def test_number_formats_of_the_modes():
    assert number_format('stock') == number_format('fast-float32') == 'float32'
    assert number_format('fast') == number_format('fast-compiled')


def test_share_of_the_network_by_hand():
    stages = {'backbone': 60.0, 'neck': 20.0, 'paste': 15.0, 'rest': 5.0}
    shares = network_share(stages, flops=8 * 10**9, peak=200e9)
    assert shares['network_ms'] == 80.0
    assert shares['outside'] == pytest.approx(0.2)
    assert shares['of_peak'] == pytest.approx(0.5)  # 16e9 could have been done


def test_summary_of_two_pictures_a_batch():
    stages = [dict(backbone=0.1, rest=0.3), dict(backbone=0.3, rest=0.1)]
    assert summary([0.5, 0.5], stages, batch=2) == dict(
        ms=[500, 500, 500], fps=4.0, stages_ms=dict(backbone=200.0, rest=200.0)
    )


def test_inner_stages_are_not_counted_twice():
    clock = Ticks()
    stages = StageClock(clock)
    stages.enter('rest')
    clock.work(1)
    stages.enter('paste')
    clock.work(2)
    stages.enter('mask branch')
    clock.work(4)
    stages.leave()
    clock.work(8)
    stages.leave()
    stages.enter('mask branch')
    clock.work(16)
    stages.leave()
    clock.work(32)
    stages.leave()
    assert stages.seconds == {'rest': 33, 'paste': 10, 'mask branch': 20}


def small(name: str) -> nn.Module:
    """A detector of this name for one class."""
    cfg = Config.fromfile(MODELS_FOLDER / f'{name}.py')
    if name == 'centermask_lite':
        cfg.model = tiny_config(1)
    if 'rpn_head' in cfg.model:
        cfg.model.test_cfg.rpn.max_per_img = 20  # instead of 1000
    return build_detector(cfg)


NAMES = (
    'centermask_lite',
    'mask_rcnn_r18_scratch',
    'condinst_r18_scratch',
    'rtmdet_ins_tiny_scratch',
)
STAGES_OF_ALL = {
    'pre-processing',
    'backbone',
    'neck',
    'box head',
    'candidates, NMS',
    'mask branch',
    'paste',
}


@pytest.mark.parametrize('name', NAMES)
def test_stages_of_a_detector(name):
    """They sum up to the whole, change nothing, and leave nothing behind."""
    model, data = small(name), noise((64, 96), 1)
    settle(model, data)
    set_limits(model, 3, score_thr=0.0)
    clock = Ticks()
    # A second passes with every module that is called.
    for module in set(model.modules()) - {model}:
        module.register_forward_hook(lambda *_: clock.work(1))
    with torch.no_grad():
        (before,) = model.test_step(data)
        before, everything = before.pred_instances.clone(), clock.time
        model.backbone(model.data_preprocessor(data)['inputs'])
        backbone = clock.time - everything - 1

        def predict() -> None:
            clock.work(1000)
            model.test_step(data)

        stages = stage_seconds(model, predict, clock)
        (after,) = model.test_step(data)
    assert stages.pop('rest') == 1000
    assert set(stages) == STAGES_OF_ALL
    assert sum(stages.values()) == everything
    assert (stages['pre-processing'], stages['backbone']) == (1, backbone)
    assert stages['candidates, NMS'] == 0  # no module is called there
    after = after.pred_instances
    assert len(after) == 3
    for key, value in before.items():
        assert torch.equal(value, after[key]), key
    assert {len(m._forward_hooks) for m in model.modules() if m is not model} == {1}
    assert not any(m._forward_pre_hooks for m in model.modules())
    heads = [m for n, m in model.named_children() if n.endswith('_head')]
    assert heads and not any('predict' in vars(head) for head in heads)


@pytest.mark.parametrize('limit', [0.9, 0.0437, 0.00213])
def test_the_threshold_is_nearly_the_highest(limit):
    found = highest_enough(lambda score_thr: score_thr <= limit)
    assert limit * 0.98 < found <= limit


def test_the_threshold_stops_where_nothing_ever_passes():
    assert highest_enough(lambda score_thr: False) < 1e-4


def test_detections_are_as_many_as_asked_for():
    """In each picture of each batch, from the same weights, twice the same."""
    batches = [noise((64, 96), 2), noise((96, 64), 1)]
    found = []
    for _ in range(2):
        model = small('centermask_lite')
        settle(model, batches[0])
        thr = keep_detections(model, batches, 7)
        with torch.no_grad():
            samples = [s.pred_instances for b in batches for s in model.test_step(b)]
        assert [len(s) for s in samples] == [7, 7, 7]
        found.append((thr, torch.cat([s.bboxes for s in samples])))
    assert found[0][0] == found[1][0] > 1e-4
    assert torch.equal(found[0][1], found[1][1])
    sizes = found[0][1][:, 2:] - found[0][1][:, :2]
    assert sizes.median() > 20  # P3 alone would give 64


def test_proposals_keep_their_limits():
    model = small('mask_rcnn_r18_scratch')
    set_limits(model, 9, 0.125)
    assert model.test_cfg.rcnn.max_per_img == 9
    assert model.roi_head.test_cfg.score_thr == 0.125
    assert model.test_cfg.rpn.max_per_img == 20
    assert model.rpn_head.test_cfg.max_per_img == 20


def test_settled_features_have_one_size():
    """Of a fresh ResNet they grow from stage to stage; batch norm keeps them."""
    data = noise((64, 64), 1)
    model = small('mask_rcnn_r18_scratch')
    settle(model, data)
    with torch.no_grad():
        maps = model.backbone(model.data_preprocessor(data)['inputs'])
    assert all(0.1 < m.std() < 3 for m in maps)
    assert not model.training


def test_nothing_is_loaded():
    file = dict(type='Pretrained', checkpoint='nowhere.pth')
    cfg = ConfigDict(
        backbone=dict(type='X', init_cfg=file, pretrained='somewhere'),
        heads=[dict(init_cfg=[dict(type='Normal'), file])],
        neck=dict(init_cfg=dict(type='Xavier')),
    )
    assert without_pretrained(cfg) == dict(
        backbone=dict(type='X'),
        heads=[dict()],
        neck=dict(init_cfg=dict(type='Xavier')),
    )


@pytest.mark.parametrize(
    'name, shape',
    [
        ('centermask_v39_fpn_ms-3x_coco', (800, 1088)),
        ('centermask-lite_v19-slim_fpn_ms-4x_coco', (608, 800)),
        ('mask-rcnn_r50_fpn_1x_coco', (800, 1088)),
    ],
)
def test_sizes_of_pictures(name, shape):
    assert network_shape(Config.fromfile(find_any_config(name))) == shape


def test_a_config_without_a_scale_wants_a_shape():
    cfg = Config.fromfile(find_any_config('centermask-lite_v19-slim_fpn_nuclei'))
    with pytest.raises(ExperimentError, match='--shape'):
        network_shape(cfg)


def test_flops_are_multiply_adds():
    conv, linear = nn.Conv2d(3, 8, 3), nn.Linear(10, 4)
    x, y = torch.ones(2, 3, 16, 16), torch.ones(5, 10)
    assert flops_of(lambda: (conv(x), linear(y))) == 2 * 3 * 8 * 9 * 14**2 + 5 * 40
    assert parameters_of(conv) == 3 * 8 * 9 + 8


def test_speed_of_a_conv_by_hand(monkeypatch):
    monkeypatch.setattr(conv_peak, 'take_turns', lambda *_: dict(conv=[0.5, 0.25]))
    cpu = torch.device('cpu')
    speed = conv_peak.conv_speed((8, 10, 12), torch.float32, cpu, rounds=2)
    assert speed == 9 * 64 * 120 / 0.25
    monkeypatch.setattr(conv_peak, 'SHAPES', ((8, 10, 12), (16, 10, 12)))
    fastest = 9 * 256 * 120 / 0.25
    assert conv_peak.conv_peaks(cpu) == dict(float32=fastest, bfloat16=fastest)


def test_stock_style_is_the_same_network():
    """The masks of a box that both find are the same but at the threshold."""
    model = talkative(tiny_model())
    cfg = in_stock_style(Config(dict(model=tiny_config())))
    init_default_scope('mmdet')
    stock = MODELS.build(cfg.model).eval()
    stock.load_state_dict(model.state_dict())
    data = noise((128, 192), 1)
    found = []
    with torch.no_grad():
        for detector in (model.eval(), stock):
            (sample,) = detector.test_step(data)
            found.append(sample.pred_instances.clone())
    ours, theirs = found
    # Ours are clipped at the end, theirs are not.
    inside = (ours.bboxes > 0).all(1) & (ours.bboxes[:, 2] < 192)
    inside &= ours.bboxes[:, 3] < 128
    same = (ours.bboxes[:, None] - theirs.bboxes).abs().amax(2) < 1e-3
    same &= ours.labels[:, None] == theirs.labels
    pairs = [(i, j) for i, j in same.nonzero().tolist() if inside[i]]
    assert len(pairs) > 5
    for i, j in pairs:
        assert (ours.masks[i] != theirs.masks[j]).float().mean() < 1e-3


def test_only_centermask_has_a_stock_style():
    cfg = Config.fromfile(MODELS_FOLDER / 'condinst_r18_scratch.py')
    with pytest.raises(ExperimentError, match="'CondInst' has no stock style"):
        in_stock_style(cfg)


def test_configs_by_name():
    ours = find_any_config('centermask_v39_fpn_ms-3x_coco')
    assert Path(ours).parent.name == 'centermask'
    theirs = Path(find_any_config('solov2_r50_fpn_1x_coco.py'))
    assert theirs.parts[-5:-1] == ('mmdet', '.mim', 'configs', 'solov2')
    with pytest.raises(FileNotFoundError, match=r'nor one of mmdet.*solov2_r50'):
        find_any_config('solov2_r50_fpn_1x_coca')


def test_a_process_of_its_own():
    assert in_new_process(operator.add, 1, 2) == 3
    with pytest.raises(ZeroDivisionError):
        in_new_process(operator.floordiv, 1, 0)


def test_what_lives_in_a_process_of_its_own_stays_there():
    with (
        closing(Resident(list, (3, 1))) as ours,
        closing(Resident(list, (5,))) as other,
    ):
        ours.call(list.append, 2)
        assert ours.call(list) == [3, 1, 2]
        assert other.call(list) == [5]


@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='Linux alone tells')
@pytest.mark.skipif(torch.cuda.is_available(), reason='the memory of a GPU is told')
def test_peak_memory_sees_what_is_gone():
    before = peak_memory_mb()
    torch.ones(300 * 2**20, dtype=torch.uint8)
    assert before + 100 < peak_memory_mb() < before + 400


def row(**changes) -> dict:
    numbers = dict(
        config='x',
        mode='fast',
        shape=[608, 800],
        batch=2,
        found=50,
        parameters=12_345_678,
        flops=98_765_432_100,
        memory_mb=1234.5,
        ms=[90.4, 100.0, 121.6],
        fps=20.0,
        ratio=4.256,
        outside=0.254,
        of_peak=0.512,
        stages_ms=dict(backbone=60.04, paste=5.0),
    )
    return numbers | changes


def test_table_of_speeds():
    header, rule, first, second = speed_table([row(), row(memory_mb=None)]).splitlines()
    assert [c.strip() for c in first.strip('|').split('|')] == [
        'x',
        'fast',
        '608 x 800',
        '2',
        '50',
        '12.3',
        '98.8',
        '1234',
        '100 (90-122)',
        '20.0',
        '4.26',
        '25%',
        '0.51',
    ]
    assert first.count('|') == header.count('|') == rule.count('|')
    assert second.split('|')[8].strip() == '-'


def test_table_of_stages_shows_what_somebody_has():
    other = row(config='y', stages_ms=dict(backbone=1.0, neck=2.0))
    assert stage_table([row(), other]).splitlines() == [
        '| config | mode | backbone | neck | paste |',
        '| ------ | ---: | -------: | ---: | ----: |',
        '| x      | fast |     60.0 |    - |   5.0 |',
        '| y      | fast |      1.0 |  2.0 |     - |',
    ]


def tool(name: str, *args: object) -> str:
    done = subprocess.run(
        [sys.executable, str(CONFIGS.parent / 'tools' / name), *map(str, args)],
        cwd=CONFIGS.parent,
        env=os.environ | dict(PYTHONPATH=str(CONFIGS.parent)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_command(tmp_path):
    cfg = Config(dict(Config.fromfile(LITE), model=tiny_config(3)))
    cfg.dump(tmp_path / 'tiny.py')
    options = '--shape 64 96 --batch 2 --detections 4 --rounds 2 --stages --threads 1'
    printed = tool(
        'benchmark.py',
        tmp_path / 'tiny.py',
        *options.split(),
        *('--mode', 'default', 'stock', '--json', tmp_path / 'speed.json'),
    )
    found = json.loads((tmp_path / 'speed.json').read_text())
    default, stock = found['rows']
    assert (default['mode'], stock['mode']) == ('default', 'stock')
    assert default['found'] == stock['found'] == 4
    assert default['ratio'] == 1
    assert default['parameters'] == stock['parameters']
    assert default['memory_mb'] > 100
    assert 0 < default['outside'] < 1
    assert found['machine']['threads'] == 1
    assert found['conv_peaks']['float32'] > 1e8
    assert printed.count('| tiny ') == 4  # two rows in either table
