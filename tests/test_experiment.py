"""Command lines and configs that cannot run are refused in one line."""

import argparse
from types import SimpleNamespace

import pytest
from mmengine.config import Config

from mmdet_centermask import experiment
from mmdet_centermask.experiment import (
    ExperimentError,
    check_data_files,
    enable_amp,
    enable_auto_scale_lr,
    enable_fast,
    enable_tta,
    load_experiment,
    parse_cfg_options,
)


@pytest.fixture
def data(tmp_path):
    (tmp_path / 'images').mkdir()
    (tmp_path / 'objects.json').write_text('{}')
    return tmp_path


def dataset(root, **changes):
    base = {
        'type': 'CocoDataset',
        'data_root': str(root),
        'ann_file': 'objects.json',
        'data_prefix': {'img': 'images/'},
    }
    return {**base, **changes}


def config(*, evaluator=None, **loaders):
    fields = {f'{name}_dataloader': {'dataset': it} for name, it in loaders.items()}
    return Config({**fields, 'val_evaluator': evaluator})


def refusal(cfg, *splits):
    with pytest.raises(ExperimentError) as error:
        check_data_files(cfg, splits)
    assert '\n' not in str(error.value)
    return str(error.value)


def test_complete_data_passes(data):
    evaluator = [{'type': 'CocoMetric', 'ann_file': str(data / 'objects.json')}]
    cfg = config(train=dataset(data), val=dataset(data), evaluator=evaluator)
    check_data_files(cfg, ('train', 'val'))


def test_missing_annotation_file_is_named(data):
    cfg = config(train=dataset(data, ann_file='gone.json'))
    assert refusal(cfg, 'train') == (
        "train_dataloader.dataset.ann_file='gone.json', "
        f"which leads to '{data}/gone.json', does not exist"
    )


@pytest.mark.parametrize('field', ['ann_file', 'proposal_file'])
def test_pickles_are_never_read(data, field):
    (data / 'objects.pkl').write_bytes(b'')
    cfg = config(train=dataset(data, **{field: 'objects.pkl'}))
    assert refusal(cfg, 'train').startswith(
        f"train_dataloader.dataset.{field}='objects.pkl' is a pickle"
    )


def test_missing_data_root_is_named(data):
    cfg = config(train=dataset(data), val=dataset('no/such/'))
    assert refusal(cfg, 'train', 'val') == (
        "val_dataloader.dataset.data_root='no/such/' does not exist"
    )


def test_missing_picture_folder_is_named(data):
    cfg = config(train=dataset(data, data_prefix={'img': 'photos/'}))
    assert refusal(cfg, 'train').startswith(
        "train_dataloader.dataset.data_prefix.img='photos/'"
    )


def test_wrapped_datasets_are_looked_into(data):
    gone = dataset(data, ann_file='gone.json')
    joined = {'type': 'ConcatDataset', 'datasets': [dataset(data), gone]}
    cfg = config(train={'type': 'RepeatDataset', 'times': 2, 'dataset': joined})
    field = 'train_dataloader.dataset.dataset.datasets.1.ann_file'
    assert refusal(cfg, 'train').startswith(f"{field}='gone.json'")


def test_missing_file_of_a_metric_is_named(data):
    metrics = [{'type': 'CocoMetric', 'ann_file': 'gone.json'}]
    cfg = config(val=dataset(data), evaluator=metrics)
    assert refusal(cfg, 'val') == "val_evaluator.0.ann_file='gone.json' does not exist"


@pytest.mark.parametrize(
    'changes',
    [
        {'data_root': 's3://bucket/coco/'},
        {'ann_file': 'https://host.invalid/a.json'},
        {'data_root': 'bucket', 'backend_args': {'backend': 'petrel'}},
        {'ann_file': '', 'data_prefix': None},
    ],
    ids=['remote root', 'remote file', 'other backend', 'nothing to check'],
)
def test_what_is_not_on_this_disk_is_left_alone(data, changes):
    check_data_files(config(train=dataset(data, **changes)), ('train',))


def test_split_without_a_loader_is_left_alone():
    check_data_files(Config({'val_dataloader': None}), ('train', 'val'))


def test_cfg_options_follow_mmengines_rules():
    options = ['a.b=1', 'c=[1,2.5]', 'd=text', 'e=(3,4)', 'f=True', 'g="[(1,2)]"']
    assert parse_cfg_options(options) == {
        'a.b': 1,
        'c': [1, 2.5],
        'd': 'text',
        'e': (3, 4),
        'f': True,
        'g': [(1, 2)],
    }
    assert parse_cfg_options([]) == {}


def test_cfg_option_without_a_value_is_refused():
    with pytest.raises(ExperimentError, match="'a.b' is not of the form key=value"):
        parse_cfg_options(['a.b'])


def arguments(**changes):
    base = {'launcher': 'none', 'cfg_options': None, 'work_dir': None}
    return argparse.Namespace(**{**base, **changes})


def test_work_dir_comes_from_the_command_then_the_config_then_the_name(tmp_path):
    plain, own = tmp_path / 'plain.py', tmp_path / 'own.py'
    plain.write_text('model = dict(type="A")\n')
    own.write_text('work_dir = "mine"\n')
    assert load_experiment(arguments(config=str(plain))).work_dir == 'work_dirs/plain'
    assert load_experiment(arguments(config=str(own))).work_dir == 'mine'
    given = arguments(config=str(own), work_dir='w', cfg_options=['model.type=B'])
    assert load_experiment(given).work_dir == 'w'
    assert load_experiment(given).model.type == 'B'


def test_value_of_a_wrong_type_is_named(tmp_path):
    (tmp_path / 'plain.py').write_text("train_cfg = dict(type='IterBasedTrainLoop')\n")
    options = ['train_cfg.max_iters=many']
    args = arguments(config=str(tmp_path / 'plain.py'), cfg_options=options)
    sentence = "train_cfg.max_iters='many': IterBasedTrainLoop takes int"
    with pytest.raises(ExperimentError, match=sentence):
        load_experiment(args)


def test_no_workers_are_none_to_keep():
    """Torch's own loader refuses these two together."""
    config = 'centermask-lite_v19-slim-dw_fpn_quickstart'
    options = ['train_dataloader.num_workers=0']
    cfg = load_experiment(arguments(config=config, cfg_options=options))
    assert not cfg.train_dataloader.persistent_workers
    assert cfg.val_dataloader.num_workers and cfg.val_dataloader.persistent_workers


def test_unknown_config_is_refused():
    with pytest.raises(ExperimentError, match="config='no_such_config'"):
        load_experiment(arguments(config='no_such_config'))


def test_launching_over_gpus_is_refused_on_a_cpu(monkeypatch, tmp_path):
    (tmp_path / 'plain.py').write_text('model = dict(type="A")\n')
    args = arguments(config=str(tmp_path / 'plain.py'), launcher='slurm')
    monkeypatch.setattr(experiment, 'get_device', lambda: 'cpu')
    with pytest.raises(ExperimentError, match="--launcher='slurm': .* leave it out"):
        load_experiment(args)
    args.launcher = 'pytorch'
    assert load_experiment(args).launcher == 'pytorch'
    monkeypatch.setattr(experiment, 'get_device', lambda: 'cuda')
    args.launcher = 'slurm'
    assert load_experiment(args).launcher == 'slurm'


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'out': 'results.json'}, "--out='results.json' has to end in .pkl"),
        ({'checkpoint': 'gone.pth'}, "checkpoint='gone.pth' is not a file"),
    ],
)
def test_bad_arguments_of_a_test_run_are_refused(changes, message):
    args = SimpleNamespace(**{'out': None, 'checkpoint': 'x.pth', **changes})
    with pytest.raises(ExperimentError, match=message):
        experiment.testing_runner(args)


@pytest.mark.parametrize('wrapper', ['OptimWrapper', 'AmpOptimWrapper'])
def test_amp_switches_wrapper_and_layout(wrapper):
    cfg = Config(
        {
            'optim_wrapper': {'type': wrapper, 'clip_grad': {'max_norm': 35}},
            'default_hooks': {'timer': {'type': 'IterTimerHook'}},
        }
    )
    enable_amp(cfg)
    assert cfg.optim_wrapper == {
        'type': 'MixedPrecisionOptimWrapper',
        'clip_grad': {'max_norm': 35},
    }
    assert cfg.default_hooks == {
        'timer': {'type': 'IterTimerHook'},
        'channels_last': {'type': 'ChannelsLastHook'},
    }


def test_amp_is_refused_where_something_else_does_it():
    with pytest.raises(ExperimentError, match="optim_wrapper.type='Other'"):
        enable_amp(Config({'optim_wrapper': {'type': 'Other'}}))
    cfg = Config({'optim_wrapper': {}, 'strategy': {'type': 'FSDPStrategy'}})
    with pytest.raises(ExperimentError, match="strategy.type='FSDPStrategy' has its"):
        enable_amp(cfg)


def test_auto_scale_lr_needs_its_base():
    cfg = Config({'auto_scale_lr': {'base_batch_size': 16, 'enable': False}})
    enable_auto_scale_lr(cfg)
    assert cfg.auto_scale_lr.enable
    with pytest.raises(ExperimentError, match='auto_scale_lr.base_batch_size'):
        enable_auto_scale_lr(Config({}))


def test_tta_wraps_the_model_and_swaps_the_pipeline(data):
    cfg = config(test=dataset(data, pipeline=['plain']))
    cfg.merge_from_dict({'model': {'type': 'A'}})
    with pytest.raises(ExperimentError, match='--tta: tta_model is missing'):
        enable_tta(cfg)
    cfg.merge_from_dict({'tta_model': {'type': 'T'}, 'tta_pipeline': ['flipped']})
    enable_tta(cfg)
    assert cfg.model == {'type': 'T', 'module': {'type': 'A'}}
    assert cfg.test_dataloader.dataset.pipeline == ['flipped']


def test_fast_adds_its_hook_once():
    cfg = Config({})
    enable_fast(cfg)
    assert cfg.custom_hooks == [{'type': 'FastInferenceHook'}]
    own = [{'type': 'FastInferenceHook', 'precision': 'float32'}]
    cfg = Config({'custom_hooks': own})
    enable_fast(cfg)
    assert cfg.custom_hooks == own
