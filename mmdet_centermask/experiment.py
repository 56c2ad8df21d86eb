"""What `tools/train.py` and `tools/test.py` do to a config before it runs.

Every refusal is an `ExperimentError` of one line that names the field and its
value, raised before a model is built or a picture is read.
"""

from __future__ import annotations

import argparse
import os.path as osp
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmdet.evaluation import DumpDetResults
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from .build_errors import build_error
from .config_path import PACKAGE_CONFIGS, find_config
from .config_types import wrong_types
from .engine.cpu_processes import spread_over_cpus
from .engine.resume_point import (
    IncompleteCheckpoint,
    find_resume_point,
    read_resume_point,
)
from .speed.precision import cpu_precision

HAVE_MIXED_PRECISION = (
    'OptimWrapper',
    'AmpOptimWrapper',
    'MixedPrecisionOptimWrapper',
)
# What constructors raise when they do not like what they get.
BUILD_ERRORS = (
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


class ExperimentError(ValueError):
    """A command line or a config that cannot run, in one line."""


def training_runner(args: argparse.Namespace) -> Runner:
    """Return the runner for the arguments of `tools/train.py`."""
    cfg = load_experiment(args)
    if args.amp:
        enable_amp(cfg)
    if args.auto_scale_lr:
        enable_auto_scale_lr(cfg)
    if args.resume is not None:
        resume_from(cfg, args.resume)
    check_data_files(cfg, ('train', 'val'))
    runner = build_runner(cfg)
    check_data(runner, ('train', 'val'))
    return runner


def testing_runner(args: argparse.Namespace) -> Runner:
    """Return the runner for the arguments of `tools/test.py`."""
    if args.out is not None and not args.out.endswith(('.pkl', '.pickle')):
        raise ExperimentError(f'--out={args.out!r} has to end in .pkl or .pickle')
    check_checkpoint('checkpoint', args.checkpoint)
    cfg = load_experiment(args)
    cfg.load_from = args.checkpoint
    if cfg.get('test_dataloader') is None:
        raise ExperimentError(f'config={args.config!r} has no test_dataloader')
    check_data_files(cfg, ('test',))
    if args.show or args.show_dir:
        if 'visualization' not in cfg.get('default_hooks', {}):
            raise ExperimentError(
                'default_hooks.visualization is missing from the config; '
                '--show and --show-dir need it'
            )
        cfg = trigger_visualization_hook(cfg, args)
    if args.tta:
        enable_tta(cfg)
    if args.fast:
        enable_fast(cfg)
    runner = build_runner(cfg)
    check_data(runner, ('test',))
    if args.out is not None:
        runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=args.out))
    return runner


def load_experiment(args: argparse.Namespace) -> Config:
    """Read the config and apply what both commands share."""
    try:
        path = find_config(args.config)
    except FileNotFoundError as error:
        raise ExperimentError(str(error)) from error
    if args.launcher in ('slurm', 'mpi') and get_device() == 'cpu':
        raise ExperimentError(
            f'--launcher={args.launcher!r}: mmengine wants GPUs for it, and only a CPU '
            "is here; leave it out or use 'pytorch'"
        )
    cfg = Config.fromfile(path)
    cfg.launcher = args.launcher
    cfg.merge_from_dict(parse_cfg_options(args.cfg_options or []))
    for problem in wrong_types(cfg._cfg_dict):
        raise ExperimentError(problem)
    keep_no_absent_workers(cfg)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('work_dirs', osp.splitext(osp.basename(path))[0])
    return cfg


def keep_no_absent_workers(cfg: Config) -> None:
    """Let `num_workers=0` be enough: torch refuses to keep workers that are not there.

    The configs keep theirs between epochs, by `persistent_workers=True`.
    """
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if loader and loader.get('num_workers') == 0:
            loader.persistent_workers = False


def parse_cfg_options(options: Sequence[str]) -> dict[str, Any]:
    """Turn `['a.b=1', 'c=[1,2]']` into a dict, by mmengine's own rules.

    The commands keep the words as they are, because mmengine's argparse action
    cannot be had without importing torch.
    """
    for option in options:
        if '=' not in option:
            raise ExperimentError(
                f'--cfg-options {option!r} is not of the form key=value'
            )
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='*', action=DictAction, default={})
    return parser.parse_args(['--cfg-options', *options]).cfg_options


def enable_amp(cfg: Config) -> None:
    """Switch to automatic mixed precision, as `configs/_base_/amp.py` does."""
    wrapper = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if wrapper not in HAVE_MIXED_PRECISION:
        raise ExperimentError(f'--amp: optim_wrapper.type={wrapper!r} has no AMP form')
    if 'strategy' in cfg:
        raise ExperimentError(
            f'--amp: strategy.type={cfg.strategy.type!r} has its own; for FSDP set '
            'strategy.model_wrapper.mixed_precision.param_dtype=bfloat16'
        )
    if get_device() == 'cpu' and cpu_precision().dtype != torch.bfloat16:
        print(f'--amp: {cpu_precision().reason}, float32 is faster on it')
    amp = Config.fromfile(PACKAGE_CONFIGS / '_base_' / 'amp.py')
    cfg.merge_from_dict(
        dict(optim_wrapper=amp.amp_optim_wrapper, default_hooks=amp.amp_hooks)
    )


def resume_from(cfg: Config, resume: str) -> None:
    """Let the runner go on from a checkpoint, under the seed of that run.

    Args:
        cfg: The config.
        resume: A file or URL, or `auto` for the newest complete checkpoint in
            `cfg.work_dir`. Where there is none, training starts as without it.
    """
    if is_remote(resume):
        cfg.resume, cfg.load_from = True, resume
        return
    if resume == 'auto':
        point = find_resume_point(cfg.work_dir)
        if point is None:
            print(f'--resume: no complete checkpoint in {cfg.work_dir}, starting anew')
            return
    else:
        check_checkpoint('--resume', resume)
        try:
            point = read_resume_point(resume)
        except IncompleteCheckpoint as error:
            raise ExperimentError(f'--resume={resume!r}: {error}') from error
    print(f'--resume: going on from {point.path}, iteration {point.iteration}')
    cfg.resume, cfg.load_from = True, str(point.path)
    randomness = cfg.get('randomness') or {}
    if randomness.get('seed') is None:
        # The order of the pictures hangs on it, and is drawn up before the runner
        # reads the checkpoint.
        cfg.randomness = dict(randomness, seed=point.seed)


def enable_auto_scale_lr(cfg: Config) -> None:
    """Let the runner scale the learning rate to the real batch size."""
    if cfg.get('auto_scale_lr', {}).get('base_batch_size') is None:
        raise ExperimentError(
            '--auto-scale-lr: auto_scale_lr.base_batch_size is missing from the config'
        )
    cfg.auto_scale_lr.enable = True


def enable_tta(cfg: Config) -> None:
    """Wrap the model in the config's test-time augmentation."""
    for field in ('tta_model', 'tta_pipeline'):
        if field not in cfg:
            raise ExperimentError(f'--tta: {field} is missing from the config')
    cfg.model = {**cfg.tta_model, 'module': cfg.model}
    for _, dataset in walk_datasets(cfg.test_dataloader.dataset, ''):
        dataset.pipeline = cfg.tta_pipeline


def enable_fast(cfg: Config, **options: Any) -> None:
    """Test with the optimized detector, unless the config already does.

    Args:
        cfg: Of the test.
        **options: Of :func:`mmdet_centermask.optimize`.
    """
    hooks = cfg.get('custom_hooks', [])
    if not any(hook['type'] == 'FastInferenceHook' for hook in hooks):
        cfg.custom_hooks = [*hooks, dict(type='FastInferenceHook', **options)]


def build_runner(cfg: Config) -> Runner:
    """Build the config's runner, joining the other processes if there are any."""
    if cfg.get('launcher') == 'pytorch' and get_device() == 'cpu':
        try:
            spread_over_cpus(cfg)
        except ValueError as error:
            raise ExperimentError(f"--launcher='pytorch': {error}") from error
    build = RUNNERS.build if 'runner_type' in cfg else Runner.from_cfg
    try:
        return build(cfg)
    except BUILD_ERRORS as error:
        raise ExperimentError(build_error(error, cfg._cfg_dict)) from error


def check_data(runner: Runner, splits: Sequence[str]) -> None:
    """Let the hook that checks data do so now.

    By its own time mmdet has read the files: it dies of one that is no COCO, and
    waits for ever for a picture of a data set that has none of the classes.
    """
    from .checks import DatasetCheckHook  # its module needs this one

    for hook in runner.hooks:
        if isinstance(hook, DatasetCheckHook):
            hook.check(runner, splits)


def check_checkpoint(field: str, path: str | None) -> None:
    """Refuse a checkpoint file that is not there. URLs are left to mmengine."""
    if path is not None and not is_remote(path) and not osp.isfile(path):
        raise ExperimentError(f'{field}={path!r} is not a file')


def check_data_files(cfg: Config, splits: Sequence[str]) -> None:
    """Refuse the first annotation file or picture folder that is not there."""
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        if loader is not None:
            root = f'{split}_dataloader.dataset'
            for field, dataset in walk_datasets(loader.dataset, root):
                check_dataset(field, dataset)
        check_evaluators(f'{split}_evaluator', cfg.get(f'{split}_evaluator'))


def walk_datasets(dataset: Any, field: str) -> Iterator[tuple[str, Any]]:
    """Yield (field name, config) of every dataset inside wrappers such as repeats."""
    if 'dataset' in dataset:
        yield from walk_datasets(dataset['dataset'], f'{field}.dataset')
    elif 'datasets' in dataset:
        for i, part in enumerate(dataset['datasets']):
            yield from walk_datasets(part, f'{field}.datasets.{i}')
    else:
        yield field, dataset


def check_dataset(field: str, dataset: Any) -> None:
    """Refuse a dataset whose data_root, ann_file or a data_prefix is not there."""
    if (dataset.get('backend_args') or {}).get('backend', 'local') != 'local':
        return
    check_no_pickle(field, dataset)
    root = dataset.get('data_root') or ''
    check_path(f'{field}.data_root', root, root)
    paths = {'ann_file': dataset.get('ann_file')}
    for key, value in (dataset.get('data_prefix') or {}).items():
        paths[f'data_prefix.{key}'] = value
    for name, value in paths.items():
        if isinstance(value, str):
            check_path(f'{field}.{name}', value, osp.join(root, value))


def check_no_pickle(field: str, dataset: Any) -> None:
    """Refuse annotations or proposals that MMEngine would unpickle: a program."""
    for name in ('ann_file', 'proposal_file'):
        value = dataset.get(name)
        if isinstance(value, str) and value.endswith(('.pkl', '.pickle')):
            raise ExperimentError(
                f'{field}.{name}={value!r} is a pickle, which runs whatever its author '
                'put into it; give JSON'
            )


def check_evaluators(field: str, evaluators: Any) -> None:
    """Refuse a metric whose annotation file is not there."""
    if isinstance(evaluators, Sequence):
        for i, evaluator in enumerate(evaluators):
            check_evaluators(f'{field}.{i}', evaluator)
    elif evaluators is not None:
        path = evaluators.get('ann_file') or ''
        check_path(f'{field}.ann_file', path, path)


def check_path(field: str, value: str, path: str) -> None:
    """Refuse `path`, which the config's `value` leads to, if nothing is there."""
    if not value or is_remote(path) or osp.exists(path):
        return
    where = '' if path == value else f', which leads to {path!r},'
    raise ExperimentError(f'{field}={value!r}{where} does not exist')


def is_remote(path: str) -> bool:
    return '://' in path
