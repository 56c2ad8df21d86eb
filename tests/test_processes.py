"""Two processes on a CPU train as one process with twice the batch."""

import socket
import sys

import pytest
import torch
from mmengine.config import Config
from tiny_run import TRAIN, losses, run, train_command, write_config, write_data

from mmdet_centermask.engine import cpu_processes
from mmdet_centermask.engine.average_losses_hook import AverageLossesHook
from mmdet_centermask.engine.cpu_processes import spread_over_cpus
from mmdet_centermask.experiment import ExperimentError, build_runner
from mmdet_centermask.models import process_share as process_share_module
from mmdet_centermask.models.process_share import process_share

# Group norm: nothing but the losses couples the pictures of a batch.
CONFIG = """
model = dict(backbone=dict(norm_cfg=dict(_delete_=True, type='GN', num_groups=16)))
"""
# Sums in another order, amplified by eight steps of training.
TOLERANCE = 1e-3
# Seen: losses of the first steps agree, norms of gradients differ by 0.7%.
UNEXPLAINED = pytest.mark.xfail(reason='open: gradients of two processes differ')


def two_processes(config, work_dir, *options):
    """What `mim train --launcher pytorch --gpus 2` runs."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    launch = [sys.executable, '-m', 'torch.distributed.launch', '--nproc_per_node=2']
    command = [*launch, f'--master_port={port}', TRAIN, config]
    return run(
        [*map(str, command), '--launcher', 'pytorch', '--work-dir', str(work_dir)]
        + list(options)
    )


def assert_same_losses(one, two):
    assert one.keys() == two.keys() and one
    for step in one:
        assert one[step].keys() == two[step].keys()
        assert two[step] == pytest.approx(one[step], rel=TOLERANCE), step


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Ten pictures, two of them without an object."""
    return write_data(tmp_path_factory.mktemp('processes') / 'data')


@pytest.fixture(scope='module')
def one_process(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp('one')
    config = write_config(folder / 'config.py', data, CONFIG)
    options = ('--cfg-options', 'train_dataloader.batch_size=2')
    run(train_command(config, folder / 'run', *options))
    return losses(folder / 'run')


@UNEXPLAINED
@pytest.mark.slow
def test_losses_of_two_processes(data, one_process, tmp_path):
    """Also of batches where one process has no object; gradients by their norm."""
    config = write_config(tmp_path / 'config.py', data, CONFIG)
    options = ('--cfg-options', 'train_dataloader.batch_size=1')
    two_processes(config, tmp_path / 'run', *options)
    assert_same_losses(one_process, losses(tmp_path / 'run'))
    saved = torch.load(tmp_path / 'run' / 'iter_8.pth', weights_only=True)
    # The same file as of one process: no prefix of a wrapper.
    assert not any(key.startswith('module.') for key in saved['state_dict'])


@UNEXPLAINED
@pytest.mark.slow
def test_losses_of_sharded_parameters(data, one_process, tmp_path):
    base = str(TRAIN.parent.parent / 'configs' / '_base_' / 'fsdp.py')
    config = write_config(tmp_path / 'config.py', data, CONFIG)
    config.write_text(
        config.read_text()
        .replace('_base_ = ', f'_base_ = [{base!r}, ', 1)
        .replace("quickstart.py'", "quickstart.py']", 1)
        # Small enough that the tiny model is cut into several pieces.
        + 'strategy = dict(model_wrapper=dict('
        'auto_wrap_policy=dict(min_num_params=100_000)))\n'
    )
    options = ('--cfg-options', 'train_dataloader.batch_size=1')
    two_processes(config, tmp_path / 'run', *options)
    assert_same_losses(one_process, losses(tmp_path / 'run'))


def test_a_process_that_nobody_launched_is_told_so(monkeypatch):
    for name in cpu_processes.ADDRESS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr('mmdet_centermask.experiment.get_device', lambda: 'cpu')
    with pytest.raises(ExperimentError) as error:
        build_runner(Config(dict(launcher='pytorch')))
    assert str(error.value).startswith("--launcher='pytorch': RANK is not set")


@pytest.mark.parametrize(
    'given, expected',
    [
        (
            dict(find_unused_parameters=True),
            dict(
                model_wrapper_cfg=dict(
                    type='MMDistributedDataParallel',
                    broadcast_buffers=False,
                    find_unused_parameters=True,
                    device_ids=None,
                )
            ),
        ),
        (
            dict(model_wrapper_cfg=dict(type='Other', static_graph=True)),
            dict(
                model_wrapper_cfg=dict(type='Other', static_graph=True, device_ids=None)
            ),
        ),
        (
            dict(
                strategy=dict(
                    type='FSDPStrategy',
                    model_wrapper=dict(type='MMFullyShardedDataParallel', a=1),
                )
            ),
            dict(
                strategy=dict(
                    type='FSDPStrategy',
                    model_wrapper=dict(
                        type='MMFullyShardedDataParallel', a=1, device_id='cpu'
                    ),
                )
            ),
        ),
    ],
)
def test_wrappers_stay_on_the_cpu(monkeypatch, given, expected):
    for name in cpu_processes.ADDRESS:
        monkeypatch.setenv(name, '0')
    joined = []
    monkeypatch.setattr(cpu_processes.dist, 'is_initialized', lambda: bool(joined))
    monkeypatch.setattr(cpu_processes.dist, 'init_process_group', joined.append)
    cfg = Config(given)
    spread_over_cpus(cfg)
    for key, value in expected.items():
        assert cfg[key] == value
    assert joined == ['gloo']
    # A group that is there is left alone.
    spread_over_cpus(cfg)
    assert joined == ['gloo']


@pytest.mark.parametrize(
    'counts, means', [((3, 1), (2.0, 6.0)), ((4, 0), (2.5, 0.0)), ((0, 0), (0.0, 0.0))]
)
def test_shares_make_the_mean_of_all(monkeypatch, counts, means):
    """Averaged over processes, the losses are the mean over all items."""
    monkeypatch.setattr(process_share_module, 'get_world_size', lambda: 2)
    mean = torch.tensor(sum(counts) / 2.0)
    monkeypatch.setattr(process_share_module, 'reduce_mean', lambda own: mean)
    shares = [process_share(count, torch.device('cpu')) for count in counts]
    averaged = sum(s * m for s, m in zip(shares, means, strict=True)) / 2
    total = sum(c * m for c, m in zip(counts, means, strict=True))
    assert averaged == pytest.approx(total / max(sum(counts), 1))


def test_share_of_a_single_process():
    assert process_share(7, torch.device('cpu')) == 1.0


def test_log_shows_the_average(monkeypatch):
    module = 'mmdet_centermask.engine.average_losses_hook'
    outputs = dict(loss=torch.tensor(3.0, requires_grad=True) * 1)
    AverageLossesHook().after_train_iter(None, 0, outputs=outputs)
    assert outputs['loss'].item() == 3

    def all_reduce(losses, op):
        assert op == 'mean'
        losses['loss'] = (losses['loss'] + 5) / 2

    monkeypatch.setattr(f'{module}.get_world_size', lambda: 2)
    monkeypatch.setattr(f'{module}.all_reduce_dict', all_reduce)
    AverageLossesHook().after_train_iter(None, 0, outputs=outputs)
    assert outputs['loss'].item() == 4 and not outputs['loss'].requires_grad
    # What NonFiniteGuardHook has taken out is not asked of the others.
    AverageLossesHook().after_train_iter(None, 0, outputs={})
