"""Options of training, as docs/training.md writes them: what they change, and what not.

The plain run is the tiny model for four iterations; an option is added to it.
"""

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from tiny_run import in_process, train, write_config, write_data
from torch import nn

from mmdet_centermask.engine import MixedPrecisionOptimWrapper
from mmdet_centermask.engine import mixed_precision_optim_wrapper as mixed_precision
from mmdet_centermask.experiment import enable_amp, parse_cfg_options

ITERATIONS = 4
DOCS = Path(__file__).resolve().parent.parent / 'docs' / 'training.md'


def documented(name: str) -> dict:
    """The options in the row of the table that starts with ``name``."""
    row = re.search(rf'^\| {re.escape(name)} \|(.*)$', DOCS.read_text(), re.MULTILINE)
    assert row is not None, f'docs/training.md has no row {name!r}'
    options = re.search(r'`([^`]*)`', row.group(1)).group(1)
    return {
        key.replace('.', '__'): value
        for key, value in parse_cfg_options(options.split()).items()
    }


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp('options')
    return write_config(folder / 'config.py', write_data(folder / 'data'))


def run(config, folder, look=None, **changes):
    """Losses of each iteration, what was looked at, and the runner."""
    runner = in_process(config, folder, train_cfg__max_iters=ITERATIONS, **changes)
    recorder = train(runner, look)
    return recorder.losses, recorder.seen, runner


@pytest.fixture(scope='module')
def plain(config, tmp_path_factory):
    return run(config, tmp_path_factory.mktemp('plain'))


def assert_near(losses, expected, tolerance):
    assert len(losses) == len(expected) == ITERATIONS
    for ours, theirs in zip(losses, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=tolerance, abs=1e-6)


def test_recomputing_changes_nothing_but_memory(config, plain, tmp_path):
    """Losses within 1e-4; running statistics move once in a step, not twice."""
    losses, _, runner = run(config, tmp_path, **documented('recompute'))
    assert runner.model.backbone.stages[0].blocks[0].with_cp
    assert_near(losses, plain[0], 1e-4)
    for (name, ours), theirs in zip(
        runner.model.backbone.named_buffers(),
        plain[2].model.backbone.buffers(),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4), name
    counts = [b for n, b in runner.model.named_buffers() if n.endswith('tracked')]
    assert counts and all(count == ITERATIONS for count in counts)


def test_mixed_precision_follows_float32(config, plain, tmp_path):
    """Losses within 5 % until steps have amplified the rounding, weights in float32."""
    amp = Config(dict(optim_wrapper=dict(type='OptimWrapper'), default_hooks={}))
    enable_amp(amp)
    losses, _, runner = run(
        config,
        tmp_path,
        optim_wrapper__type=amp.optim_wrapper.type,
        default_hooks__channels_last=amp.default_hooks.channels_last,
    )
    assert isinstance(runner.optim_wrapper, MixedPrecisionOptimWrapper)
    assert losses[0]['loss'] != plain[0][0]['loss']
    assert len(losses) == ITERATIONS
    for ours, theirs in zip(losses[:3], plain[0], strict=False):
        assert ours['loss'] == pytest.approx(theirs['loss'], rel=0.05)
    assert {p.dtype for p in runner.model.parameters()} == {torch.float32}
    weight = runner.model.neck.fpn_convs[0].conv.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    # The state of the absent loss scaler comes and goes with checkpoints.
    state = runner.optim_wrapper.state_dict()
    runner.optim_wrapper.load_state_dict(state)


def test_network_runs_in_bfloat16(config, tmp_path):
    seen = set()
    runner = in_process(
        config,
        tmp_path,
        train_cfg__max_iters=1,
        optim_wrapper__type='MixedPrecisionOptimWrapper',
    )
    for conv in (m for m in runner.model.modules() if isinstance(m, nn.Conv2d)):
        conv.register_forward_hook(lambda *args: seen.add(args[2].dtype))
    train(runner)
    # The gates alone stay in float32.
    assert seen == {torch.bfloat16, torch.float32}
    gates = [m for n, m in runner.model.named_modules() if n.endswith('ese')]
    out = []
    handles = [
        g.fc.register_forward_hook(lambda *args: out.append(args[2].dtype))
        for g in gates
    ]
    with runner.optim_wrapper.optim_context(runner.model):
        runner.model.backbone(torch.rand(1, 3, 64, 64))
    assert len(handles) == len(out) == 4 and set(out) == {torch.float32}


def test_another_type_on_a_cpu_is_refused(monkeypatch):
    monkeypatch.setattr(mixed_precision, 'get_device', lambda: 'cpu')
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(ValueError, match="dtype='float16' on a CPU"):
        MixedPrecisionOptimWrapper(dtype='float16', optimizer=optimizer)


def test_averaged_weights_are_a_formula_of_the_plain_ones(config, plain, tmp_path):
    """The run itself is the plain one, to the last bit."""
    options = documented('averaged weights')
    momentum = options['default_hooks__ema__momentum']

    def look(runner):
        (ema,) = [h for h in runner.hooks if type(h).__name__ == 'EMAHook']
        name = 'bbox_head.conv_cls.bias'
        average = ema.ema_model.module.get_parameter(name).clone()
        return runner.model.get_parameter(name).clone(), average

    losses, seen, _ = run(config, tmp_path, look, **options)
    assert losses == plain[0]
    assert torch.equal(*seen[0])
    for (_, before), (weight, average) in zip(seen, seen[1:], strict=False):
        expected = (1 - momentum) * before + momentum * weight
        assert torch.allclose(average, expected, atol=1e-7)


def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path):
    """Twice the same picture: two halves must add up to the step of one."""
    data = write_data(tmp_path / 'data', pictures=1)
    config = write_config(tmp_path / 'config.py', data)
    pipeline = Config.fromfile(config).train_dataloader.dataset.pipeline
    same = dict(
        train_dataloader__batch_size=1,
        train_dataloader__dataset__pipeline=[
            step for step in pipeline if step.type != 'RandomFlip'
        ],
        param_scheduler=[],
        auto_scale_lr__enable=False,
    )

    def look(runner):
        return [p.clone() for p in runner.model.parameters()]

    _, whole, _ = run(config, tmp_path / 'whole', look, **same)
    options = documented('accumulate')
    parts = options['optim_wrapper__accumulative_counts']
    runner = in_process(
        config,
        tmp_path / 'parts',
        train_cfg__max_iters=ITERATIONS * parts,
        **same,
        **options,
    )
    seen = train(runner, look).seen[parts - 1 :: parts]
    for ours, theirs in zip(seen, whole, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert torch.allclose(a, b, rtol=1e-3, atol=1e-4)


def test_synchronised_norms_are_plain_ones_in_one_process(config, plain, tmp_path):
    losses, _, _ = run(config, tmp_path, **documented('synchronised norms'))
    assert losses == plain[0]


def test_group_norms_do_not_couple_pictures(config, tmp_path):
    """What two processes rely on; that they give the losses of one is tested there."""
    options = documented('group norms')
    runner = in_process(config, tmp_path, **options)
    backbone = runner.model.backbone.train()
    norms = [m for m in backbone.modules() if isinstance(m, nn.GroupNorm)]
    assert norms and not any(isinstance(m, nn.BatchNorm2d) for m in backbone.modules())
    x = torch.rand(2, 3, 64, 64)
    for both, one, two in zip(
        backbone(x), backbone(x[:1]), backbone(x[1:]), strict=True
    ):
        assert torch.allclose(both, torch.cat([one, two]), rtol=1e-4, atol=1e-5)


def test_everything_but_the_heads_frozen(config, tmp_path):
    """The first losses are the plain ones; backbone and neck stay to the last bit."""

    def look(runner):
        return {n: p.clone() for n, p in runner.model.named_parameters()}

    evaluated = dict(model__backbone__norm_eval=True)
    free, free_seen, _ = run(config, tmp_path / 'free', look, **evaluated)
    options = documented('frozen up to the heads')
    losses, seen, _ = run(config, tmp_path / 'frozen', look, **evaluated, **options)
    assert losses[0] == free[0]
    assert losses[1] != free[1]
    for name, weight in seen[0].items():
        moved = not torch.equal(weight, seen[-1][name])
        assert moved is name.startswith(('bbox_head', 'roi_head')), name
    assert not torch.equal(
        free_seen[0]['neck.fpn_convs.0.conv.weight'],
        free_seen[-1]['neck.fpn_convs.0.conv.weight'],
    )
