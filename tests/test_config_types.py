"""Type hints against values: what is wrong is named, what is right is left alone."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Number
from pathlib import Path
from typing import Any, Literal, Optional, Union

import pytest
from mmdet.utils import ConfigType, MultiConfig, OptConfigType
from mmengine.config import Config, ConfigDict

from mmdet_centermask.config_types import fits, hints_of, wrong_types

CONFIGS = Path(__file__).resolve().parent.parent / 'configs'


@pytest.mark.parametrize(
    ('hint', 'right', 'wrong'),
    [
        (int, [3, 3.0, True], ['3', None, {}, ['a'], [1]]),
        (float, [3, 0.5], ['0.5', None, {}, [0.1, 0.2]]),
        (Number, [3, 0.5], ['0.5', None]),
        (list[float], [[1], [[1], [2]]], [['a'], 'a', 1, None]),
        (str, ['a'], [1, None, {}, ['a']]),
        (bool, [True, 0], ['yes', None, {}]),
        (Optional[int], [3, None], ['3', {}]),  # noqa: UP045
        (int | None, [3, None], ['3', {}]),
        (list[int], [[1], (1, 2), []], ['1', 1, None, {}, ['a'], [None], [1, []]]),
        (list[int | None], [[1, None]], [['a', None]]),
        (tuple[int, ...], [(1, 2), ()], ['1', None, (1, None)]),
        (list[tuple[int, int]], [[(1, 2)], []], [[(1, 2), []], [None]]),
        (Sequence[str], [['a'], 'a'], [1, None, {}]),
        (Sequence[ConfigDict], [[{}]], ['a', ['a'], 1]),
        (dict, [{}, ConfigDict(a=1)], [1, 'a', None, []]),
        (ConfigType, [{}, [{}]], [1, 'a', None, [], ['a']]),
        (OptConfigType, [{}, None], [1, 'a']),
        (MultiConfig, [{}, [{}]], [1, 'a', None]),
        (Union[bool, str], [True, 'on_input'], [None, {}]),  # noqa: UP007
        (Literal['bitmap', 'rle'], ['rle'], [1, None]),
        (Any, [1, 'a', None, {}, []], []),
        (Path, [1, 'a', None, {}], []),  # no opinion
    ],
    ids=str,
)
def test_truth_table(hint, right, wrong):
    assert [value for value in right if not fits(value, hint)] == []
    assert [value for value in wrong if fits(value, hint)] == []


class Base:
    def __init__(self, depth: int, style: str = 'plain', cfg: dict = None) -> None:  # noqa: RUF013
        pass


class Derived(Base):
    def __init__(self, width: int, depth: str = 'deep', **kwargs) -> None:
        pass


def test_arguments_of_base_classes_count():
    hints = hints_of(Derived)
    assert sorted(hints) == ['cfg', 'depth', 'kwargs', 'self', 'style', 'width']
    # One of the two classes takes it; None is the default.
    assert fits(3, hints['depth']) and fits('deep', hints['depth'])
    assert not fits({}, hints['depth'])
    assert fits(None, hints['cfg']) and not fits(3, hints['cfg'])


def test_a_default_with_a_point_takes_numbers():
    class Neck:
        def __init__(self, scale=1.0, bins=1, mode='mean'):
            pass

    class Loss:
        def __init__(self, use_mask=False, gamma=2.0, loss_weight=1.0):
            pass

    neck, loss = hints_of(Neck), hints_of(Loss)
    assert fits(2, neck['scale']) and fits(None, neck['scale'])
    assert not fits('text', neck['scale']) and not fits({}, neck['scale'])
    assert fits((1, 1), neck['bins']) and fits(None, neck['mode'])
    assert fits(2, loss['gamma']) and fits(0.5, loss['loss_weight'])
    assert not fits(None, loss['gamma']) and not fits('text', loss['loss_weight'])
    assert fits(True, loss['use_mask']) and not fits(None, loss['use_mask'])
    losses = [dict(type='FocalLoss', gamma='text'), dict(type='FocalLoss', gamma=2)]
    assert list(wrong_types(dict(losses=losses))) == [
        "losses.0.gamma='text': FocalLoss takes float"
    ]


def test_transforms_take_a_number_for_each_channel():
    mix_up = dict(type='CachedMixUp', pad_val=(114, 114, 114))
    assert list(wrong_types(dict(pipeline=[mix_up]))) == []
    mix_up['pad_val'] = ('a', 'b', 'c')
    assert len(list(wrong_types(dict(pipeline=[mix_up])))) == 1


def test_fields_are_named_wherever_they_are():
    cfg = dict(
        model=dict(
            type='CenterMask',
            backbone=dict(type='VoVNet', arch=39, frozen_stages='all'),
            neck=dict(type='FPN', in_channels='512', out_channels=256, num_outs=5),
        ),
        train_dataloader=dict(
            dataset=dict(
                type='CocoDataset',
                pipeline=[
                    dict(type='LoadImageFromFile', to_float32='no'),
                    dict(type='mmdet.Resize', keep_ratio={}),
                ],
            )
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters='many'),
        other=dict(type='NoSuchClass', depth='deep'),
    )
    assert [problem.split('=')[0] for problem in wrong_types(cfg)] == [
        'model.backbone.arch',
        'model.backbone.frozen_stages',
        'model.neck.in_channels',
        'train_dataloader.dataset.pipeline.0.to_float32',
        'train_dataloader.dataset.pipeline.1.keep_ratio',
        'train_cfg.max_iters',
    ]
    assert next(wrong_types(cfg)) == 'model.backbone.arch=39: VoVNet takes str'


@pytest.mark.parametrize(
    'name', sorted(p.stem for p in CONFIGS.rglob('*.py') if '_base_' not in p.parts)
)
def test_no_false_alarm(name):
    (path,) = CONFIGS.rglob(f'{name}.py')
    cfg = Config.fromfile(path, import_custom_modules=False)
    assert list(wrong_types(cfg._cfg_dict)) == []
