"""Configs out of checkpoints: data is read, code is refused."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from mmdet.registry import MODELS
from mmengine.config import Config
from tiny_centermask import CONFIGS

from mmdet_centermask.convert.sources import Pixels
from mmdet_centermask.experiment import ExperimentError
from mmdet_centermask.inference.checkpoint_config import (
    config_of_checkpoint,
    parse_config,
)

NAMES = (
    'quickstart/panoptic-centermask_v19-slim-dw_fpn_quickstart.py',
    'centermask/centermask_v39-dcn_fpn_ms-3x_coco.py',
    'lvis/centermask_r50_fpn_ms-2x_lvis-v1.py',
)


@pytest.mark.parametrize('name', NAMES)
def test_reads_what_mmengine_executes(name):
    text = Config.fromfile(CONFIGS / name).pretty_text
    executed = Config.fromstring(text, '.py').to_dict()
    assert (
        config_of_checkpoint(dict(meta=dict(cfg=text)), 'a.pth').to_dict() == executed
    )


def test_literals():
    text = "a = dict(b=[1, -2.5, (None, True)], c={'d e': inf, 3: 'x' 'y'})\nf = {1, 2}"
    assert parse_config(text) == dict(
        a=dict(b=[1, -2.5, (None, True)], c={'d e': float('inf'), 3: 'xy'}), f={1, 2}
    )


@pytest.mark.parametrize(
    'line',
    [
        "__import__('os').system('true')",
        "a = __import__('os')",
        'import os',
        'a = dict(**b)',
        'a = dict(b)',
        'a = [x for x in ()]',
        "a = f'{1}'",
        'a, b = 1, 2',
        'a = b',
        'a = {**b}',
        "a = open('x')",
    ],
)
def test_code_is_refused(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match='is not plain data in line 2'):
        parse_config(f'b = 1\n{line}')
    said = r'a\.pth: its config is not plain data in line 1; give the config file'
    with pytest.raises(ExperimentError, match=said):
        config_of_checkpoint(dict(meta=dict(cfg=line)), 'a.pth')


@pytest.mark.parametrize('name', ['os.system', 'mmengine.utils.call_command'])
def test_types_that_are_no_modules_of_a_registry_are_refused(name):
    """mmengine would import and call them."""
    text = f"model = dict(type='CenterMask', backbone=[dict(type='{name}')])"
    with pytest.raises(ExperimentError, match=f"type='{name}', which is no registered"):
        config_of_checkpoint(dict(meta=dict(cfg=text)), 'a.pth')


def test_the_message_hub_comes_first():
    hub = dict(runtime_info=dict(cfg='a = 1'))
    checkpoint = dict(message_hub=hub, meta=dict(cfg='a = 2'))
    assert config_of_checkpoint(checkpoint, '').a == 1


def test_the_converter_names_a_config():
    """And says what the network was trained on; here as for LIVECell."""
    pixels = asdict(Pixels(mean=(128.0,) * 3, std=(11.578,) * 3))
    name = 'centermask-lite_v19-slim-dw_fpn_ms-4x_coco.py'
    meta = dict(config=name, num_classes=7, pixels=pixels)
    cfg = config_of_checkpoint(dict(meta=meta), 'a.pth')
    assert cfg.model.backbone.arch == 'V-19-slim-dw'
    assert cfg.model.num_classes == 7
    preprocessor = MODELS.build(cfg.model.data_preprocessor)
    assert preprocessor.mean.flatten().tolist() == [128.0] * 3
    assert preprocessor.std.flatten().tolist() == pytest.approx([11.578] * 3)
    assert preprocessor._channel_conversion is False


def test_weights_alone_say_what_is_missing():
    with pytest.raises(ExperimentError, match='holds no config; give the config file'):
        config_of_checkpoint({'backbone.weight': 1}, 'a.pth')
