"""Killed at any moment, a run loses nothing: the resumed one computes the same."""

import itertools
import random
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.hooks import CheckpointHook
from tiny_run import environment, losses, run, train_command, write_config, write_data
from torch.utils.data import BatchSampler, DataLoader

from mmdet_centermask.engine import (
    AtomicCheckpointHook,
    NumberedBatchSampler,
    ResumableTrainLoop,
)
from mmdet_centermask.engine.atomic_checkpoint_hook import (
    AtomicBackend,
    warn_of_split_updates,
)
from mmdet_centermask.engine.numbered_batch_sampler import (
    number_batches,
    seed_by_place,
)
from mmdet_centermask.engine.randomness import seed_randomness
from mmdet_centermask.engine.resumable_train_loop import Batches
from mmdet_centermask.engine.resume_point import (
    IncompleteCheckpoint,
    find_resume_point,
    read_resume_point,
)
from mmdet_centermask.experiment import ExperimentError, resume_from


class Noise(torch.utils.data.Dataset):
    """Item i is i and what each generator says next."""

    def __len__(self):
        return 7

    def __getitem__(self, index):
        return index, random.random(), np.random.rand(), torch.rand(()).item()


def loader(workers=0, seed=3, batch_size=2, sampler=InfiniteSampler):
    dataset = Noise()
    seed_by_place(dataset, seed)
    batches = NumberedBatchSampler(
        sampler(dataset, seed=seed), batch_size, dict(type=BatchSampler, drop_last=True)
    )
    return DataLoader(
        dataset, batch_sampler=batches, num_workers=workers, collate_fn=list
    )


def first(dataloader, number):
    return list(itertools.islice(iter(dataloader), number))


def test_random_numbers_follow_from_the_key():
    def draw(*key):
        seed_randomness(*key)
        return random.random(), np.random.rand(), torch.rand(()).item()

    keys = [(0,), (1,), (0, 0), (0, 1), (1, 0), (2**31 - 1, 1, 0, 270_000)]
    drawn = [draw(*key) for key in keys]
    assert [draw(*key) for key in keys] == drawn
    # 18 numbers: no generator repeats another's, no key another's.
    assert len(set(itertools.chain(*drawn))) == 3 * len(keys)


def test_pictures_do_not_depend_on_workers():
    alone = first(loader(0), 6)
    assert first(loader(2), 6) == alone
    # The order is that of the sampler, and every visit has numbers of its own.
    order = list(itertools.islice(InfiniteSampler(Noise(), seed=3), 12))
    pictures = [item for batch in alone for item in batch]
    assert [item[0] for item in pictures] == order
    assert len({item[1] for item in pictures}) == 12


@pytest.mark.parametrize('taken', [0, 1])
def test_pictures_do_not_depend_on_what_was_loaded_before(taken):
    whole = first(loader(), 6)
    dataloader = loader()
    iterator = iter(dataloader)
    for _ in range(taken):
        next(iterator)
    # So many more are drawn and forgotten.
    assert dataloader.batch_sampler.skip_to(3) == 3 - taken
    assert list(itertools.islice(iterator, 3)) == whole[3:]
    assert dataloader.batch_sampler.skip_to(2) == 0


def test_workers_give_what_they_have_in_hand_before_the_rest():
    whole = first(loader(), 6)
    dataloader = loader(workers=1)
    iterator = iter(dataloader)
    skipped = dataloader.batch_sampler.skip_to(4)
    in_hand = 4 - skipped
    assert in_hand == 2  # torch's DataLoader draws two for each worker
    assert list(itertools.islice(iterator, in_hand + 2)) == whole[:in_hand] + whole[4:]


def test_two_processes_draw_and_augment_as_one_with_twice_the_batch(monkeypatch):
    whole = first(loader(batch_size=4), 3)
    parts = []
    for rank in range(2):
        for module in (
            'mmengine.dataset.sampler',
            'mmdet_centermask.engine.numbered_batch_sampler',
        ):
            monkeypatch.setattr(f'{module}.get_dist_info', lambda r=rank: (r, 2))
        parts.append(first(loader(batch_size=2), 3))
    for both, one, two in zip(whole, *parts, strict=True):
        assert sorted(both) == sorted([*one, *two])


def test_past_batches_are_dropped_at_once_too():
    """As the fork of MMEngine asks for it."""
    batches = Batches(iter('abcde'))
    assert next(batches) == 'a'
    batches.skip_iter(2)
    assert list(batches) == ['d', 'e']


def test_loop_wants_a_config():
    with pytest.raises(TypeError, match='train_dataloader=.* has to be a config'):
        ResumableTrainLoop(None, loader(), max_iters=1)


def test_only_an_endless_sampler_is_skipped():
    assert loader().batch_sampler.endless
    assert not loader(sampler=DefaultSampler).batch_sampler.endless


def test_numbering_leaves_the_configured_batches():
    plain = number_batches(dict(batch_size=2, drop_last=True))
    assert plain == dict(
        batch_size=2,
        batch_sampler=dict(
            type='NumberedBatchSampler',
            batch_sampler=dict(type=BatchSampler, drop_last=True),
        ),
    )
    given = dict(batch_size=2, batch_sampler=dict(type='AspectRatioBatchSampler'))
    assert number_batches(given)['batch_sampler'] == dict(
        type='NumberedBatchSampler', batch_sampler=given['batch_sampler']
    )
    assert given['batch_sampler'] == dict(type='AspectRatioBatchSampler')


def test_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / 'iter_1.pth'
    AtomicBackend().put(b'old', path)
    assert path.read_bytes() == b'old'

    def killed(descriptor):
        raise KeyboardInterrupt

    # Until the bytes are on the disk, the old file stands.
    monkeypatch.setattr('os.fsync', killed)
    with pytest.raises(KeyboardInterrupt):
        AtomicBackend().put(b'new', path)
    assert path.read_bytes() == b'old'


def checkpoint(path, iteration, **changes):
    content = dict(
        meta=dict(iter=iteration, seed=5),
        state_dict=dict(weight=torch.zeros(1000)),
        optimizer={},
    )
    content.update(changes)
    torch.save({k: v for k, v in content.items() if v is not None}, path)
    return path


def cut_off(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize('share', [0, 0.01, 0.5, 0.999])
def test_newest_complete_checkpoint_is_found(tmp_path, share):
    checkpoint(tmp_path / 'iter_2.pth', 2)
    ten = checkpoint(tmp_path / 'iter_10.pth', 10)
    half = checkpoint(tmp_path / 'iter_12.pth', 12)
    cut_off(half, share)
    (tmp_path / 'last_checkpoint').write_text(str(half))
    # The best one has no optimizer: good for testing, not for going on.
    checkpoint(tmp_path / 'best_coco_segm_mAP_iter_14.pth', 14, optimizer=None)
    assert find_resume_point(tmp_path) == (ten, 10, 5)


@pytest.mark.parametrize('pointer', [None, '', 'gone/iter_8.pth'])
def test_bad_pointer_strands_nobody(tmp_path, pointer):
    two = checkpoint(tmp_path / 'iter_2.pth', 2)
    if pointer is not None:
        (tmp_path / 'last_checkpoint').write_text(pointer)
    assert find_resume_point(tmp_path).path == two
    two.unlink()
    assert find_resume_point(tmp_path) is None


def test_pointer_may_lead_elsewhere(tmp_path):
    (tmp_path / 'run').mkdir()
    far = checkpoint(tmp_path / 'iter_8.pth', 8)
    checkpoint(tmp_path / 'run' / 'iter_2.pth', 2)
    (tmp_path / 'run' / 'last_checkpoint').write_text(str(far))
    assert find_resume_point(tmp_path / 'run').path == far


def test_incomplete_file_is_refused_with_its_reason(tmp_path):
    path = checkpoint(tmp_path / 'iter_2.pth', 2, optimizer=None)
    with pytest.raises(IncompleteCheckpoint, match="has no 'optimizer'"):
        read_resume_point(path)
    cut_off(path, 0.5)
    with pytest.raises(ExperimentError) as error:
        resume_from(Config(dict(work_dir='w')), str(path))
    assert str(error.value).startswith(f'--resume={str(path)!r}: {path} cannot be read')
    assert '\n' not in str(error.value)


def test_resuming_takes_over_the_seed(tmp_path, capsys):
    cfg = Config(dict(work_dir=str(tmp_path), load_from='start.pth'))
    resume_from(cfg, 'auto')
    assert 'starting anew' in capsys.readouterr().out
    assert 'resume' not in cfg and cfg.load_from == 'start.pth'
    path = checkpoint(tmp_path / 'iter_2.pth', 2)
    resume_from(cfg, 'auto')
    assert (cfg.resume, cfg.load_from) == (True, str(path))
    assert cfg.randomness == dict(seed=5)
    cfg.randomness = dict(seed=6, deterministic=True)
    resume_from(cfg, str(path))
    assert cfg.randomness == dict(seed=6, deterministic=True)
    resume_from(cfg, 's3://bucket/iter_2.pth')
    assert cfg.load_from == 's3://bucket/iter_2.pth'


class Messages:
    """What the checkpoint hook needs of a runner, its saving left to a function."""

    def __init__(self, work_dir, save):
        self.work_dir = str(work_dir)
        self.runtime_info = {}
        self.message_hub = self
        self.save = save
        self.warnings = []
        self.logger = self
        self.optim_wrapper = None
        self.iter = self.epoch = 0

    def info(self, text):
        pass

    def warning(self, text):
        self.warnings.append(text)

    def update_info(self, key, value):
        self.runtime_info[key] = value

    def get_info(self, key):
        return self.runtime_info[key]

    def save_checkpoint(self, out_dir, filename, *args, backend_args, **kwargs):
        self.save(Path(out_dir) / filename)


@pytest.mark.parametrize(
    'hook_type, survivors', [(CheckpointHook, []), (AtomicCheckpointHook, ['iter_1'])]
)
def test_old_checkpoint_goes_when_the_new_one_is_there(tmp_path, hook_type, survivors):
    """The stock hook, killed while it writes, leaves a run without a checkpoint."""
    runner = Messages(tmp_path, lambda path: checkpoint(path, 1))
    hook = hook_type(
        by_epoch=False, interval=1, max_keep_ckpts=1, save_best='AP', rule='greater'
    )
    hook.before_train(runner)
    hook._save_checkpoint(runner)
    runner.iter = 1
    hook._save_best_checkpoint(runner, dict(AP=0.1))

    def killed(path):
        raise KeyboardInterrupt

    runner.save = killed
    for step in (
        lambda: hook._save_checkpoint(runner),
        lambda: hook._save_best_checkpoint(runner, dict(AP=0.2)),
    ):
        with pytest.raises(KeyboardInterrupt):
            step()
    left = sorted(p.stem for p in tmp_path.glob('iter_*.pth'))
    assert left == survivors
    assert len(list(tmp_path.glob('best_*.pth'))) == len(survivors)


def test_outdated_files_are_removed_in_the_end(tmp_path):
    runner = Messages(tmp_path, lambda path: checkpoint(path, 1))
    (tmp_path / 'iter_9.pth.unfinished').write_bytes(b'half')
    hook = AtomicCheckpointHook(
        by_epoch=False, interval=1, max_keep_ckpts=2, save_best='AP', rule='greater'
    )
    hook.before_train(runner)
    for step in range(1, 5):
        hook._save_checkpoint(runner)
        runner.iter = step
        # Twice, as where one iteration is validated again: its file stays.
        hook._save_best_checkpoint(runner, dict(AP=0.1 * step))
        hook._save_best_checkpoint(runner, dict(AP=0.1 * step + 0.05))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        'best_AP_iter_4.pth',
        'iter_3.pth',
        'iter_4.pth',
        'last_checkpoint',
    ]


def test_split_updates_are_announced(tmp_path):
    runner = Messages(tmp_path, None)
    runner.optim_wrapper = type('Wrapper', (), dict(_accumulative_counts=4))
    warn_of_split_updates(runner, 8, False)
    assert not runner.warnings
    warn_of_split_updates(runner, 10, False)
    assert 'interval=10 is no multiple of' in runner.warnings[0]


def killed_at_random(command, work_dir, rng):
    """Start a run and kill it, and its workers, some time after iteration 2."""
    process = subprocess.Popen(
        command,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 300
        while process.poll() is None and len(losses(work_dir)) < 3:
            assert time.monotonic() < deadline, 'the run does not get going'
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 2))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    config = write_config(
        tmp_path / 'config.py',
        write_data(tmp_path / 'data'),
        # A seed that nobody wrote down, averaged weights, batches sorted by shape.
        more="""
randomness = dict(seed=None)
custom_hooks = [dict(type='EMAHook', momentum=0.1)]
train_dataloader['batch_sampler'] = dict(type='AspectRatioBatchSampler')
""",
    )
    work_dir = tmp_path / 'killed'
    rng = random.Random()
    killed_at_random(train_command(config, work_dir), work_dir, rng)
    before = losses(work_dir)
    killed_at = find_resume_point(work_dir)
    assert killed_at is not None, 'a checkpoint is complete after iteration 2'
    # The worst case on top: the newest file is cut off, and the pointer names it.
    broken = checkpoint(work_dir / 'iter_7.pth', 7)
    cut_off(broken, 0.5)
    (work_dir / 'last_checkpoint').write_text(str(broken))
    printed = run(train_command(config, work_dir, '--resume'))
    assert f'going on from {killed_at.path}' in printed
    resumed = losses(work_dir)

    whole = tmp_path / 'whole'
    run(
        train_command(
            config, whole, '--cfg-options', f'randomness.seed={killed_at.seed}'
        )
    )
    expected = losses(whole)
    assert sorted(expected) == list(range(1, 9))
    # To the last bit, before and after; the data worker is another process.
    assert before == {step: expected[step] for step in before}
    assert resumed == expected
    last = [torch.load(w / 'iter_8.pth', weights_only=True) for w in (work_dir, whole)]
    for key in ('state_dict', 'ema_state_dict'):
        ours, theirs = last[0][key], last[1][key]
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
