"""Weights, learning rate, first loss, pixels: right numbers, plain words, no crash."""

from __future__ import annotations

import logging
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmdet.models.losses import FocalLoss
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from tiny_centermask import CONFIGS, batch_of, picture, tiny_config, tiny_model
from tiny_coco import CLASSES, sound_coco, write_coco, write_pictures

from mmdet_centermask import experiment
from mmdet_centermask.checks.first_loss import FirstLoss, expected_focal_loss
from mmdet_centermask.checks.learning_rate import LearningRate, learning_rate_of
from mmdet_centermask.checks.pixel_statistics import (
    pixel_problem,
    pixel_statistics,
    raw_pictures,
)
from mmdet_centermask.checks.startup_check_hook import StartupCheckHook
from mmdet_centermask.models.weight_shares import (
    complete,
    in_words,
    pretrained_shares,
    state_of,
    unfilled,
    unlike_names,
    weight_shares,
)

# Weights


def state(**shapes) -> dict:
    return {
        name.replace('__', '.'): torch.zeros(shape) for name, shape in shapes.items()
    }


OWN = state(
    backbone__a=(4, 3),
    backbone__b=(4,),
    backbone__bn__num_batches_tracked=(),
    bbox_head__cls=(3, 8, 3, 3),
    bbox_head__cls_bias=(3,),
    bbox_head__reg=(4, 8, 3, 3),
)


def test_shares_in_the_words_of_the_issue():
    given = state(
        backbone__a=(4, 3),
        backbone__b=(4,),
        bbox_head__cls=(80, 8, 3, 3),
        bbox_head__cls_bias=(80,),
        bbox_head__reg=(4, 8, 1, 1),
        other__x=(1,),
    )
    shares = weight_shares(OWN, given)
    assert in_words(shares) == (
        'backbone 2 of 2 tensors, '
        'bbox_head 0 of 3 tensors (2 class rows differ in shape, 1 differ in shape)'
    )
    assert unfilled(shares) == ['bbox_head'] and not complete(shares)
    assert complete(weight_shares(OWN, OWN))


def test_state_of_every_kind_of_checkpoint():
    plain = state(backbone__a=(4, 3))
    wrapped = {'module.backbone.a': plain['backbone.a']}
    for checkpoint in (
        plain,
        dict(plain, epoch=3),
        dict(state_dict=plain, optimizer={}),
        dict(state_dict=wrapped),
    ):
        assert state_of(checkpoint).keys() == plain.keys()


def test_names_that_do_not_fit_are_shown():
    foreign = state(backbone__bottom_up__a=(4, 3))
    assert unlike_names(OWN, foreign) == (
        "it holds names such as 'backbone.bottom_up.a', the model has 'backbone.a'"
    )
    assert unlike_names(OWN, {}) == 'it holds no tensors'
    assert unlike_names(OWN, state(backbone__a=(4, 3))) == "'backbone.b' is missing"


def test_share_of_pretrained_parts(tmp_path):
    path = str(tmp_path / 'backbone.pth')
    model = tiny_model()
    weights = {f'net.{k}': v for k, v in model.backbone.state_dict().items()}
    torch.save(dict(state_dict=weights), path)
    assert pretrained_shares(model) == []
    model.backbone.init_cfg = dict(type='Pretrained', checkpoint=path, prefix='net.')
    ((share, source),) = pretrained_shares(model)
    # V-19-slim-dw: every weight and buffer but the counters.
    wanted = sum(not k.endswith('num_batches_tracked') for k in weights)
    assert str(share) == f'backbone {wanted} of {wanted} tensors' and source == path
    model.backbone.init_cfg['prefix'] = 'other.'
    ((share, _),) = pretrained_shares(model)
    assert share.filled == 0


def test_whoever_loads_a_centermask_hears_of_it(caplog):
    """DetInferencer calls what is called here; mmengine itself raises nothing."""
    model = tiny_model()
    foreign = {f'detector.{k}': v for k, v in model.state_dict().items()}
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        _load_checkpoint_to_model(model, dict(state_dict=model.state_dict()))
        assert not [m for m in caplog.messages if 'does not fit' in m]
        _load_checkpoint_to_model(model, dict(state_dict=foreign))
    finally:
        logger.removeHandler(caplog.handler)
    (message,) = [m for m in caplog.messages if 'does not fit' in m]
    assert message.startswith('CenterMask: the checkpoint does not fit, backbone 0 of ')


# Learning rate


@pytest.mark.parametrize(
    'scaled, pictures, accumulated, effective, word',
    [
        (True, 16, 1, 0.01, None),
        (True, 2, 1, 0.00125, None),
        (False, 16, 1, 0.01, None),
        (False, 12, 1, 0.01, None),  # a third too high
        (False, 2, 1, 0.01, 'too high, which can end in NaN losses'),
        (False, 2, 8, 0.01, None),  # 16 pictures in a step
        (False, 64, 1, 0.01, 'too low'),
        (True, 2, 8, 0.00125, 'too low'),  # mmengine counts the 2 alone
    ],
)
def test_learning_rate(scaled, pictures, accumulated, effective, word):
    rate = LearningRate(0.01, 16, scaled, pictures, accumulated)
    assert rate.effective == pytest.approx(effective)
    problem = rate.problem()
    assert (problem is None) == (word is None)
    if word:
        assert f'the learning rate {effective:.4g} is {word}:' in problem


@pytest.mark.parametrize('scaled', [True, False])
def test_advised_learning_rate_is_right(scaled):
    """Written into the config, it gives 0.01 for 16 pictures, scaled linearly."""
    rate = LearningRate(0.01, 16, scaled, 2, 4)
    advised = LearningRate(rate.lr_to_write, 16, scaled, 2, 4)
    assert advised.effective == pytest.approx(0.01 * 8 / 16)
    assert f'lr={rate.lr_to_write:.4g}' in rate.problem()


def test_learning_rate_in_plain_words():
    assert LearningRate(0.01, 16, False, 2).problem() == (
        'the learning rate 0.01 is too high, which can end in NaN losses: 0.01 is '
        'meant for 16 pictures, and a step sees 2; set '
        'auto_scale_lr=dict(enable=True), or optim_wrapper.optimizer.lr=0.00125'
    )
    assert str(LearningRate(0.01, 16, True, 1)) == (
        'learning rate 0.000625 for 1 picture a step (0.01 for 16)'
    )


def test_learning_rate_of_a_config():
    cfg = Config(
        dict(
            train_dataloader=dict(batch_size=2),
            optim_wrapper=dict(optimizer=dict(lr=0.01), accumulative_counts=2),
            auto_scale_lr=dict(enable=True, base_batch_size=16),
        )
    )
    assert learning_rate_of(cfg, 4) == LearningRate(0.01, 16, True, 8, 2)
    cfg.auto_scale_lr = None
    assert learning_rate_of(cfg, 4) is None  # nobody says what 0.01 is for


# First loss


def test_expected_loss_by_hand():
    """0.25 x 0.99^2 x 4.60517 for each positive, 0.75 x 0.01^2 x 0.01005 otherwise."""
    assert expected_focal_loss(1, 0, 1) == pytest.approx(1.128382, 1e-5)
    assert expected_focal_loss(0, 10**6, 1) == pytest.approx(0.753776, 1e-5)
    assert expected_focal_loss(3, 10**6, 3) == pytest.approx(1.379640, 1e-5)


def test_expected_loss_is_that_of_mmdet_at_the_prior():
    logits = torch.full((500, 4), -4.59512)  # a probability of 0.01
    labels = torch.tensor([0, 1, 2, 3, 3] + [4] * 495)
    loss = FocalLoss()
    listener = FirstLoss()
    listener.listen(torch.nn.ModuleList([loss]))
    value = loss(logits, labels, avg_factor=5).item()
    assert listener.found == pytest.approx(value)
    assert listener.expected == pytest.approx(value, 1e-4)
    one_hot = torch.nn.functional.one_hot(labels, 5)[:, :4]
    loss(logits, one_hot, avg_factor=5)
    assert listener.expected == pytest.approx(2 * value, 1e-4)
    listener.stop()
    loss(logits, labels, avg_factor=5)
    assert listener.expected == pytest.approx(2 * value, 1e-4)


def first_loss(model, *pictures) -> FirstLoss:
    inputs, samples = batch_of(model, *pictures, training=True)
    listener = FirstLoss()
    listener.listen(model)
    with torch.no_grad():
        model.train().loss(inputs, samples)
    return listener


def test_fresh_head_is_near_the_expectation():
    found = first_loss(tiny_model(), picture(), picture(boxes=(), seed=1))
    assert found.problem() is None
    assert found.found == pytest.approx(found.expected, rel=0.2)
    alone = first_loss(tiny_model(), picture(boxes=(), seed=1))
    assert alone.problem() is None  # no object: 0.01 of a loss, and that is right


def test_exploded_head_is_not():
    model = tiny_model()
    model.bbox_head.conv_cls.weight.data *= 100
    found = first_loss(model, picture())
    assert found.problem().startswith(
        f'the first loss_cls is {found.found:.3g}, where a head that starts with '
        f'probability 0.01 gives {found.expected:.3g} (a third to triple is usual)'
    )


# Pixels

BGR, STD = [103.53, 116.28, 123.675], [57.375, 57.12, 58.395]
ONES, ZEROS = [1.0] * 3, [0.0] * 3


@pytest.mark.parametrize(
    'found_mean, found_std, mean, std, fits',
    [
        ([110, 115, 120], [60, 60, 60], BGR, ONES, True),
        ([110, 115, 120], [60, 60, 60], BGR, STD, True),
        ([110, 115, 120], [60, 60, 60], ZEROS, [255.0] * 3, True),
        ([14, 14, 14], [9, 9, 9], BGR, ONES, True),  # a dark microscope
        ([128, 128, 128], [11, 11, 11], [128.0] * 3, [11.578] * 3, True),  # LIVECell
        ([0, 0, 0], [0, 0, 0], BGR, ONES, True),  # black pictures say nothing
        # Pixels in 0..1 and mean in 0..255, and the other way round.
        ([0.45, 0.46, 0.47], [0.2, 0.2, 0.2], BGR, ONES, False),
        ([0.45, 0.46, 0.47], [0.2, 0.2, 0.2], BGR, STD, False),
        ([110, 115, 120], [60, 60, 60], [0.4, 0.45, 0.48], [0.22] * 3, False),
        ([110, 115, 120], [60, 60, 60], [0.4, 0.45, 0.48], ONES, False),
        ([9000, 9000, 9000], [5000, 5000, 5000], BGR, ONES, False),  # 16 bits
        ([110, 115, 120], [60, 60, 60], ZEROS, [2.0] * 3, False),
    ],
)
def test_pixels(found_mean, found_std, mean, std, fits):
    assert (pixel_problem(found_mean, found_std, mean, std) is None) == fits


def test_pixel_statistics_are_those_of_all_pictures_together():
    dark, light = torch.zeros(3, 8, 8, dtype=torch.uint8), torch.full((3, 8, 16), 90)
    light[2] = 30
    mean, std = pixel_statistics([dark, light])
    # A third of the pixels is 0: mean 2/3 v, std sqrt(2)/3 v.
    assert mean == pytest.approx([60, 60, 20])
    assert std == pytest.approx([90 * 2**0.5 / 3, 90 * 2**0.5 / 3, 10 * 2**0.5])


def test_batches_of_all_forms():
    pixels = torch.zeros(3, 8, 8)
    assert len(raw_pictures(dict(inputs=[pixels, pixels]))) == 2
    assert len(raw_pictures(dict(inputs=torch.zeros(4, 3, 8, 8)))) == 4
    for other in (None, [pixels], dict(inputs=dict(sup=[pixels])), dict(x=1)):
        assert raw_pictures(other) == []


# The hook


class Runner(SimpleNamespace):
    """What the hook needs of a runner; keeps what is logged."""

    def __init__(self, model, **cfg) -> None:
        super().__init__(
            model=model, iter=0, cfg=Config(cfg), logger=logging.getLogger('startup')
        )


RECIPE = dict(
    train_dataloader=dict(batch_size=2),
    optim_wrapper=dict(optimizer=dict(lr=0.01)),
    auto_scale_lr=dict(enable=True, base_batch_size=16),
)


def first_iteration(hook: StartupCheckHook, runner: Runner) -> None:
    hook.before_train(runner)
    # Photographs have a mean of about 110, the noise of the tiny pictures does too.
    pictures = [picture(seed=1), picture(seed=2, boxes=())]
    data = dict(inputs=[pixels for pixels, _ in pictures])
    inputs, samples = batch_of(runner.model, *pictures, training=True)
    with torch.no_grad():
        outputs = runner.model.train().loss(inputs, samples)
    for i in range(2):
        hook.after_train_iter(runner, i, data, outputs)


def test_one_line_when_all_is_well(caplog):
    with caplog.at_level(logging.INFO, 'startup'):
        first_iteration(StartupCheckHook(), Runner(tiny_model(), **RECIPE))
    (record,) = caplog.records
    weights, rate, loss, pixels = record.message.split('; ')
    assert record.levelname == 'INFO'
    assert weights == 'start-up check: weights: all random'
    assert rate == 'learning rate 0.00125 for 2 pictures a step (0.01 for 16)'
    assert loss.startswith('first loss_cls 1.') and ', expected 1.' in loss
    assert pixels == 'pixels fit mean and std'


def test_everything_wrong_is_said_and_training_goes_on(caplog):
    model = tiny_model(data_preprocessor__mean=[0.4, 0.4, 0.4])
    model.bbox_head.conv_cls.weight.data *= 100
    hook = StartupCheckHook()
    recipe = dict(RECIPE, auto_scale_lr=dict(enable=False, base_batch_size=16))
    runner = Runner(model, **recipe)
    foreign = {f'detector.{k}': v for k, v in model.state_dict().items()}
    hook.after_load_checkpoint(runner, dict(state_dict=foreign))
    first_iteration(hook, runner)
    warned = [r.message for r in caplog.records if r.levelname == 'WARNING']
    beginnings = (
        'the checkpoint does not fit the model, backbone 0 of ',
        'the learning rate 0.01 is too high',
        'the first loss_cls is ',
        'pixels of the first batch are ',
    )
    assert len(warned) == 4
    for message, beginning in zip(warned, beginnings, strict=True):
        assert message.startswith(f'start-up check: {beginning}')


def test_trained_head_has_no_expected_loss(caplog):
    model = tiny_model()
    hook, runner = StartupCheckHook(), Runner(model)
    hook.after_load_checkpoint(runner, dict(state_dict=model.state_dict()))
    with caplog.at_level(logging.INFO, 'startup'):
        first_iteration(hook, runner)
    (message,) = caplog.messages
    assert 'loss_cls' not in message
    parts = message.split('; ')[0].removeprefix('start-up check: weights: ').split(', ')
    for part in parts:
        _, filled, _, total, _ = part.split()
        assert filled == total


def test_resuming_from_half_a_checkpoint_is_a_warning(caplog):
    model = tiny_model()
    half = {k: v for k, v in model.state_dict().items() if 'roi_head' not in k}
    hook, runner = StartupCheckHook(), Runner(model)
    hook.after_load_checkpoint(runner, dict(state_dict=half))
    hook.before_train(runner)
    assert caplog.messages == []  # a start from a detector without masks is a choice
    runner.iter = 100
    hook.before_train(runner)
    assert 'roi_head 0 of ' in caplog.messages[0]


def test_random_weights_are_not_measured(caplog):
    model = tiny_model()
    whole = model.state_dict()
    foreign = {f'detector.{k}': v for k, v in whole.items()}
    backbone = {k: v for k, v in whole.items() if k.startswith('backbone')}
    for given in (foreign, backbone, {}):
        hook, runner = StartupCheckHook(), Runner(model, load_from='x.pth')
        hook.after_load_checkpoint(runner, dict(state_dict=given))
        with pytest.raises(experiment.ExperimentError) as error:
            hook.before_test(runner)
        assert '\n' not in str(error.value)
        assert str(error.value).startswith(
            'the checkpoint does not fit the config, x.pth: backbone '
        )
        assert 'tools/convert_checkpoint.py' in str(error.value)
        with pytest.raises(experiment.ExperimentError):
            hook.before_val(runner)
        off = StartupCheckHook(enabled=False)
        off.after_load_checkpoint(runner, dict(state_dict=given))
        off.before_test(runner)
    assert caplog.messages == []


def test_checkpoint_of_another_number_of_classes_is_shouted(caplog):
    hook, runner = StartupCheckHook(), Runner(tiny_model(3), load_from='x.pth')
    other = tiny_model(5).state_dict()
    hook.after_load_checkpoint(runner, dict(state_dict=other))
    with caplog.at_level(logging.INFO, 'startup'):
        hook.before_test(runner)
    (record,) = caplog.records
    assert record.levelname == 'WARNING'
    assert '(2 class rows differ in shape)' in record.message  # of conv_cls
    assert 'the others stay random' in record.message


def test_tta_wrapper_is_looked_through():
    wrapped = MODELS.build(dict(type='MaskTTAModel', module=tiny_config()))
    hook, runner = StartupCheckHook(), Runner(wrapped)
    state_dict = wrapped.module.state_dict()
    hook.after_load_checkpoint(runner, dict(state_dict=state_dict))
    hook.before_test(runner)


class FullyShardedDataParallel(torch.nn.Sequential):
    """Named as FSDP's; asking it for weights needs every process."""

    def state_dict(self, *args, **kwargs):
        raise AssertionError('a collective call')


def test_sharded_weights_are_left_alone(caplog):
    model = torch.nn.Sequential(FullyShardedDataParallel(torch.nn.Linear(2, 2)))
    hook, runner = StartupCheckHook(), Runner(model)
    hook.after_load_checkpoint(runner, dict(state_dict={}))
    hook.before_train(runner)
    hook.after_train_iter(runner, 0, data_batch=None)
    hook.before_test(runner)
    assert hook._said == ['weights: sharded, not compared']


def test_models_of_unknown_form_are_no_crash(caplog):
    """A plain module without a preprocessor, and a config of wrong types."""
    recipe = dict(RECIPE, train_dataloader=dict(batch_size='two'))
    hook, runner = StartupCheckHook(), Runner(torch.nn.Linear(2, 2), **recipe)
    with caplog.at_level(logging.INFO, 'startup'):
        hook.before_train(runner)
        hook.after_train_iter(runner, 0, data_batch=object(), outputs=None)
    assert [r.levelname for r in caplog.records] == ['WARNING', 'WARNING', 'INFO']
    assert caplog.messages[0].startswith(
        'start-up check: no check_learning_rate here (TypeError('
    )


# In real runs


def run_config(folder: Path) -> Path:
    """A config that trains the tiny model for two iterations on two pictures."""
    write_pictures(folder / 'images')
    write_coco(folder / 'fruit.json', sound_coco())
    loads = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
        dict(type='Resize', scale=(64, 64)),
        dict(type='PackDetInputs'),
    ]
    dataset = dict(
        type='CocoDataset',
        data_root=str(folder),
        ann_file='fruit.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=CLASSES),
        pipeline=loads,
    )
    sampler = dict(type='DefaultSampler', shuffle=False)
    loader = dict(batch_size=2, num_workers=0, dataset=dataset, sampler=sampler)
    cfg = Config.fromfile(CONFIGS / '_base_' / 'default_runtime.py')
    cfg.merge_from_dict(
        dict(
            custom_imports=dict(imports=['mmdet_centermask']),
            model=tiny_config(2),
            train_dataloader=loader,
            test_dataloader=dict(loader, dataset=dict(dataset, test_mode=True)),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=2),
            test_cfg=dict(type='TestLoop'),
            test_evaluator=dict(type='CocoMetric', ann_file=f'{folder}/fruit.json'),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
            auto_scale_lr=dict(enable=True, base_batch_size=16),
            visualizer=dict(type='DetLocalVisualizer', name='startup'),
        )
    )
    cfg.default_hooks.checkpoint.interval = 2
    cfg.dump(folder / 'run.py')
    return folder / 'run.py'


def arguments(config: Path, work_dir: str, **changes) -> Namespace:
    base = dict(config=str(config), work_dir=str(config.parent / work_dir))
    base.update(launcher='none', cfg_options=None, tta=False, out=None, show=False)
    base.update(amp=False, auto_scale_lr=False, resume=None, show_dir=None, fast=False)
    return Namespace(**{**base, **changes})


def check_lines(folder: Path) -> list[str]:
    """What the hooks wrote into the one log file below `folder`."""
    (log,) = folder.glob('*/*.log')
    lines = log.read_text().splitlines()
    return [line.split(' - ', 1)[1] for line in lines if ' check: ' in line]


@pytest.mark.slow
def test_two_lines_of_a_training_and_two_of_a_test(tmp_path):
    config = run_config(tmp_path)
    experiment.training_runner(arguments(config, 'train')).train()
    data, start = check_lines(tmp_path / 'train')
    assert data.startswith(
        'mmengine - INFO - dataset check: 0 errors, 0 warnings in 1 '
    )
    assert start.startswith('mmengine - INFO - start-up check: weights: all random; ')
    assert 'learning rate 0.00125 for 2 pictures a step (0.01 for 16)' in start
    assert 'first loss_cls ' in start and start.endswith('pixels fit mean and std')

    checkpoint = str(tmp_path / 'train' / 'iter_2.pth')
    experiment.testing_runner(arguments(config, 'test', checkpoint=checkpoint)).test()
    data, start = check_lines(tmp_path / 'test')
    assert start.startswith(
        f'mmengine - INFO - start-up check: weights from {checkpoint}: backbone '
    )

    saved = torch.load(checkpoint, weights_only=True)['state_dict']
    foreign = str(tmp_path / 'foreign.pth')
    torch.save(dict(state_dict={f'net.{k}': v for k, v in saved.items()}), foreign)
    runner = experiment.testing_runner(arguments(config, 'foreign', checkpoint=foreign))
    with pytest.raises(
        experiment.ExperimentError, match='the checkpoint does not fit the config'
    ):
        runner.test()


@pytest.mark.slow
def test_data_without_its_classes_is_refused_where_mmdet_would_wait(tmp_path):
    """No class of the config in the file: no picture is left, the sampler spins."""
    config = run_config(tmp_path)
    coco = sound_coco()
    for category in coco['categories']:
        category['name'] = category['name'].upper()
    write_coco(tmp_path / 'fruit.json', coco)
    with pytest.raises(experiment.ExperimentError, match='the file has 0 of them'):
        experiment.training_runner(arguments(config, 'train'))
