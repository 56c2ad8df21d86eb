"""A loss that is not finite ruins nothing, and can be looked into afterwards."""

import json
import math

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.hooks import Hook
from tiny_run import in_process, train, write_config, write_data
from torch import nn

from mmdet_centermask.engine import NonFiniteError, NonFiniteGuardHook
from mmdet_centermask.engine.replay import describe, replay
from mmdet_centermask.engine.saved_batch import load_batch

POISONED = 2


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp('non_finite')
    return write_config(folder / 'config.py', write_data(folder / 'data'))


class Poison(Hook):
    """Puts a NaN into the first picture of some iterations, counted from 0."""

    def __init__(self, *iterations):
        self.iterations = iterations

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if batch_idx in self.iterations:
            pixels = data_batch['inputs'][0].float()
            pixels[0, 0, 0] = math.nan
            data_batch['inputs'][0] = pixels


class PoisonGradient(Hook):
    """Lets the loss be finite and one gradient not."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if batch_idx == POISONED:
            weight = runner.model.bbox_head.conv_reg.weight
            self.handle = weight.register_hook(lambda grad: grad * math.inf)
        elif batch_idx == POISONED + 1:
            self.handle.remove()


def state(runner):
    """Weights, running statistics and momenta."""
    weights = {k: v.clone() for k, v in runner.model.state_dict().items()}
    moments = runner.optim_wrapper.optimizer.state_dict()['state']
    return weights, {
        (i, k): v.clone() for i, s in moments.items() for k, v in s.items()
    }


def same(one, two):
    return all(
        a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
        for a, b in zip(one, two, strict=True)
    )


@pytest.mark.parametrize(
    'poison, problem', [(Poison(POISONED), 'loss'), (PoisonGradient(), 'gradient')]
)
def test_step_is_left_out_and_reported(config, tmp_path, poison, problem):
    runner = in_process(config, tmp_path, train_cfg__max_iters=4)
    run = train(runner, state, [poison])
    states = run.seen
    assert not same(states[0], states[1])
    assert same(states[POISONED - 1], states[POISONED])
    assert not same(states[POISONED], states[POISONED + 1])
    # Nothing of it reaches the averages of the log.
    assert run.losses[POISONED] == {}
    assert math.isfinite(run.losses[POISONED + 1]['loss'])

    (entry,) = map(json.loads, (tmp_path / 'non_finite.jsonl').read_text().splitlines())
    assert (entry['iteration'], entry['problem']) == (POISONED + 1, problem)
    assert math.isnan(entry['losses']['loss_cls']) is (problem == 'loss')
    # The third of the schedule: from a half to the full 0.001 over 6 iterations, for a
    # batch of 2 where the config counts on 4.
    assert entry['lr']['lr'] == pytest.approx(0.0005 * (0.5 + 0.5 * 2 / 5))
    ids = [
        sample.img_id
        for sample in load_batch(tmp_path / entry['batch']).data_batch['data_samples']
    ]
    assert [picture['img_id'] for picture in entry['pictures']] == ids
    assert entry['pictures'][0]['img_path'].endswith(f'{ids[0]}.png')


def test_norms_forget_what_the_bad_batch_told_them(config, tmp_path):
    """Without care they stay NaN: 0.9 times a NaN is one."""
    runner = in_process(config, tmp_path, train_cfg__max_iters=POISONED + 1)
    train(runner, hooks=[Poison(POISONED)])
    norms = [m for m in runner.model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(n.training for n in norms[:1])
    assert all(buffer.isfinite().all() for n in norms for buffer in n.buffers())
    assert all(n.num_batches_tracked == POISONED for n in norms)


def test_accumulated_gradients_are_dropped_with_it(config, tmp_path):
    """Updates fall on every second iteration; the second of them is spoilt."""
    runner = in_process(
        config,
        tmp_path,
        optim_wrapper__accumulative_counts=2,
        train_cfg__max_iters=6,
    )

    def weights(runner):
        return torch.cat([p.detach().flatten() for p in runner.model.parameters()])

    seen = train(runner, weights, [Poison(POISONED)]).seen
    changed = [not torch.equal(a, b) for a, b in zip(seen, seen[1:], strict=False)]
    # 0-1 update; 2 is spoilt and starts its pair anew; 3 updates with its own half.
    assert changed == [True, False, True, False, True]


def test_stops_where_told_to(config, tmp_path):
    runner = in_process(config, tmp_path, default_hooks__non_finite__action='stop')
    with pytest.raises(NonFiniteError) as error:
        train(runner, hooks=[Poison(POISONED)])
    assert str(error.value).startswith('loss not finite in iteration 3 (pictures ')
    assert '\n' not in str(error.value)
    # The checkpoint before it is there, none behind it.
    assert [p.name for p in tmp_path.glob('iter_*.pth')] == ['iter_2.pth']


def test_gives_up_where_nothing_is_good_any_more(config, tmp_path):
    runner = in_process(
        config,
        tmp_path,
        train_cfg__max_iters=20,
        default_hooks__non_finite__max_in_a_row=3,
    )
    with pytest.raises(NonFiniteError, match='iteration 6 .*; 3 in a row'):
        train(runner, hooks=[Poison(0, 1, 3, 4, 5)])
    assert len((tmp_path / 'non_finite.jsonl').read_text().splitlines()) == 5


def test_unknown_action_is_refused():
    with pytest.raises(ValueError, match="action='ignore' is unknown"):
        NonFiniteGuardHook(action='ignore')


def test_saved_step_gives_the_same_losses_again(config, tmp_path):
    """A finite step, saved as if it had not been: every number can be compared."""
    runner = in_process(config, tmp_path, train_cfg__max_iters=POISONED + 1)
    # Flips, and more boxes than the sampler takes: random numbers on both sides.
    runner.model.roi_head.bbox_sampler.num = 4
    run = train(runner, hooks=[PoisonGradient()])
    saved = load_batch(tmp_path / f'non_finite_iter_{POISONED + 1}.pth')
    assert isinstance(saved.data_batch['data_samples'][0], DetDataSample)
    assert math.isfinite(saved.losses['loss'])
    cfg = runner.cfg
    cfg.model.train_cfg.rcnn.sampler.num = 4
    result = replay(cfg, saved)
    assert run.losses[POISONED] == {}
    assert result.losses == pytest.approx(saved.losses, rel=1e-6)
    assert result.module is None and result.parameters == []
    # Two pictures, each of which costs something.
    assert [meta['img_id'] for meta, _ in result.pictures] == [
        sample.img_id for sample in saved.data_batch['data_samples']
    ]
    assert all(loss > 0 for _, loss in result.pictures)


def test_replay_names_picture_and_module(config, tmp_path):
    runner = in_process(config, tmp_path, train_cfg__max_iters=POISONED + 1)
    train(runner, hooks=[Poison(POISONED)])
    saved = load_batch(tmp_path / f'non_finite_iter_{POISONED + 1}.pth')
    result = replay(runner.cfg, saved)
    (bad, bad_loss), (good, good_loss) = result.pictures
    assert math.isnan(bad_loss) and math.isfinite(good_loss)
    # The data preprocessor is first to touch it, the first convolution to show it.
    assert result.module.startswith(('data_preprocessor', 'backbone.stem.0'))
    text = describe(saved, result)
    assert f'  {bad["img_id"]} {bad["img_path"]}: loss nan' in text
    assert result.module in text
    assert 'loss_cls                       nan           nan' in text


def test_other_files_are_refused(tmp_path):
    path = tmp_path / 'x.pth'
    torch.save(dict(weight=torch.zeros(1)), path)
    with pytest.raises(ValueError, match='x.pth is no saved batch'):
        load_batch(path)


class Harm:
    """Its pickle would call print."""

    def __reduce__(self):
        return print, ('executed',)


def test_nothing_in_a_file_is_executed(tmp_path, capsys):
    path = tmp_path / 'x.pth'
    torch.save(dict(data_batch=Harm()), path)
    with pytest.raises(ValueError, match='is no saved batch'):
        load_batch(path)
    assert 'executed' not in capsys.readouterr().out
