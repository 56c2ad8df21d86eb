"""Two processes on a CPU train as one process with twice the batch."""

import socket
import sys

import pytest
import torch
from mmcv.cnn import Scale
from mmengine.config import Config
from tiny_run import TRAIN, losses, run, train_command, write_config, write_data
from torch import nn

from mmdet_centermask.engine import cpu_processes
from mmdet_centermask.engine.average_losses_hook import AverageLossesHook
from mmdet_centermask.engine.cpu_processes import spread_over_cpus
from mmdet_centermask.engine.sharded_strategy import lift_scalars
from mmdet_centermask.experiment import ExperimentError, build_runner
from mmdet_centermask.models import process_share as process_share_module
from mmdet_centermask.models.process_share import process_share

# Group norm: nothing but the losses couples the pictures of a batch.
CONFIG = """
model = dict(backbone=dict(norm_cfg=dict(_delete_=True, type='GN', num_groups=16)))
"""
# Training amplifies rounding: in float32 one process drifts as far from itself when
# the two pictures of a batch change places (docs/reliability.md).
FLOAT64 = """
import torch
torch.set_default_dtype(torch.float64)
"""
# Steps as long as the gradients, which are clipped: their norms are 8 and more. Adam
# would divide a common factor out.
CLIPPED_SGD = """
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='SGD', lr=0.002, weight_decay=1e-4),
    clip_grad=dict(max_norm=5),
)
"""
# Of every loss and of the norm of gradients, in all eight steps.
SAME = 1e-6
SAME_FLOAT32 = 1e-2  # seen: 1.3e-3, on a CPU held to AVX2


def two_processes(config, work_dir, *options):
    """The losses of what `mim train --launcher pytorch --gpus 2` runs."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    launch = [sys.executable, '-m', 'torch.distributed.launch', '--nproc_per_node=2']
    command = [*launch, f'--master_port={port}', TRAIN, config]
    run(
        [*map(str, command), '--launcher', 'pytorch', '--work-dir', str(work_dir)]
        + ['--cfg-options', 'train_dataloader.batch_size=1', *options]
    )
    return losses(work_dir)


def weights(work_dir):
    saved = torch.load(work_dir / 'iter_8.pth', weights_only=True)
    return saved['state_dict']


def assert_same_losses(one, two, tolerance):
    assert one.keys() == two.keys() == set(range(1, 9))
    for step in one:
        assert two[step] == pytest.approx(one[step], rel=tolerance), step


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Ten pictures, two of them without an object."""
    return write_data(tmp_path_factory.mktemp('processes') / 'data')


@pytest.mark.slow
def test_two_processes_train_as_one_with_twice_the_batch(data, tmp_path):
    """Also on batches where one process has no object; gradients by their norm."""
    config = write_config(tmp_path / 'config.py', data, FLOAT64 + CONFIG)
    options = ('--cfg-options', 'train_dataloader.batch_size=2')
    run(train_command(config, tmp_path / 'one', *options))
    one = losses(tmp_path / 'one')
    assert_same_losses(one, two_processes(config, tmp_path / 'two'), SAME)
    # The same file, too: no prefix of a wrapper.
    assert weights(tmp_path / 'two').keys() == weights(tmp_path / 'one').keys()


@pytest.mark.slow
def test_sharded_parameters_train_as_whole_ones(data, tmp_path):
    """In float32: both ways compute the same in each process."""
    whole = write_config(tmp_path / 'whole.py', data, CONFIG + CLIPPED_SGD)
    base = str(TRAIN.parent.parent / 'configs' / '_base_' / 'fsdp.py')
    sharded = tmp_path / 'sharded.py'
    sharded.write_text(
        whole.read_text()
        .replace('_base_ = ', f'_base_ = [{base!r}, ', 1)
        .replace("quickstart.py'", "quickstart.py']", 1)
        # Small enough that the tiny model is cut into several pieces.
        + 'strategy = dict(model_wrapper=dict('
        'auto_wrap_policy=dict(min_num_params=100_000)))\n'
    )
    expected = two_processes(whole, tmp_path / 'whole')
    found = two_processes(sharded, tmp_path / 'sharded')
    assert_same_losses(expected, found, SAME_FLOAT32)
    ours, theirs = weights(tmp_path / 'sharded'), weights(tmp_path / 'whole')
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        assert ours[name].shape == weight.shape, name
        assert torch.allclose(ours[name], weight, rtol=1e-3, atol=1e-4), name


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = Scale(2.0)
        self.fixed = nn.Parameter(torch.tensor(3.0), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return self.scale(x) * self.fixed + self.bias


def test_scalars_become_vectors_and_files_fit_both_ways():
    plain, lifted = Scaled(), Scaled()
    nn.init.constant_(plain.scale.scale, 5.0)
    assert lift_scalars(lifted) == ['fixed', 'scale.scale']
    shapes = {name: tuple(p.shape) for name, p in lifted.named_parameters()}
    assert shapes == {'fixed': (1,), 'bias': (3,), 'scale.scale': (1,)}
    assert not lifted.fixed.requires_grad and lifted.scale.scale.requires_grad
    lifted.load_state_dict(plain.state_dict())
    x = torch.rand(2, 3, 4, 3)
    assert torch.equal(lifted(x), plain(x))
    nn.init.constant_(lifted.scale.scale, 7.0)
    plain.load_state_dict(lifted.state_dict())
    assert plain.scale.scale.shape == () and plain.scale.scale.item() == 7


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
