"""The exported folder: its facts, its program in a bare environment, the commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from exported_tiny import CLASSES, load_tool, real_pictures, write_network
from mmengine.config import Config
from PIL import Image
from tiny_centermask import CONFIGS, tiny_config, tiny_model

from mmdet_centermask.deploy import predict
from mmdet_centermask.deploy.export_folder import resize_of
from mmdet_centermask.deploy.predict import Predictor
from mmdet_centermask.deploy.trained import load_trained
from mmdet_centermask.experiment import ExperimentError


def run(*command, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, **options
    )


def test_folder_and_facts(exported):
    assert sorted(path.name for path in exported.folder.iterdir()) == [
        'model.json',
        'model.onnx',
        'predict.py',
    ]
    assert json.loads((exported.folder / 'model.json').read_text()) == dict(
        name='tiny',
        classes=list(CLASSES),
        scale=None,
        scale_factor=0.5,
        channels='BGR',
        mean=[103.53, 116.28, 123.675],
        std=[1.0, 1.0, 1.0],
        pad_value=0,
        pad_size_divisor=32,
        class_threshold=0.05,
        nms_threshold=0.6,
        max_objects=50,
        mask_threshold=0.5,
        opset=18,
    )
    shipped = (exported.folder / 'predict.py').read_bytes()
    assert shipped == Path(predict.__file__).read_bytes()


@pytest.mark.parametrize(
    'name, expected',
    [
        ('centermask/centermask_v39_fpn_ms-3x_coco', dict(scale=(1333, 800))),
        ('centermask_lite/centermask-lite_v19_fpn_ms-4x_coco', dict(scale=(1000, 600))),
        ('nuclei/centermask-lite_v19-slim_fpn_nuclei', dict(scale_factor=1.5)),
    ],
)
def test_size_of_shipped_configs(name, expected):
    found = resize_of(Config.fromfile(CONFIGS / f'{name}.py'))
    assert found == {'scale': None, 'scale_factor': None, **expected}


@pytest.mark.parametrize(
    'step', [dict(type='Resize', scale=(64, 64)), dict(type='Pad', size=(64, 64))]
)
def test_other_steps_of_the_pipeline_are_refused(step):
    dataset = dict(pipeline=[dict(type='LoadImageFromFile'), step])
    cfg = Config(dict(test_dataloader=dict(dataset=dataset)))
    with pytest.raises(ExperimentError) as refusal:
        resize_of(cfg)
    assert str(step) in str(refusal.value)
    assert '\n' not in str(refusal.value)


def test_weights_of_another_network_are_refused(tmp_path):
    config, checkpoint = write_network(tmp_path, tiny_model(3), tiny_config(3))
    torch.save(dict(state_dict=tiny_model(2).state_dict()), checkpoint)
    with pytest.raises(ExperimentError) as refusal:
        load_trained(str(config), str(checkpoint))
    assert 'size mismatch for bbox_head.conv_cls.weight' in str(refusal.value)
    assert '\n' not in str(refusal.value)
    state = tiny_model(3).state_dict()
    del state['neck.fpn_convs.0.conv.weight']
    torch.save(dict(state_dict=state), checkpoint)
    with pytest.raises(ExperimentError, match='neck.fpn_convs.0.conv.weight'):
        load_trained(str(config), str(checkpoint))


def test_names_of_the_checkpoint_win_and_are_counted(tmp_path):
    model = tiny_model(3)
    config, checkpoint = write_network(tmp_path, model, tiny_config(3))
    assert load_trained(str(config), str(checkpoint)).classes == CLASSES
    saved = dict(state_dict=model.state_dict())
    for classes in (('a', 'b', 'c'), ('a', 'b')):
        meta = dict(dataset_meta=dict(classes=classes))
        torch.save(dict(saved, meta=meta), checkpoint)
        if len(classes) == 3:
            assert load_trained(str(config), str(checkpoint)).classes == classes
    with pytest.raises(ExperimentError, match='num_classes=3 but .* names 2 classes'):
        load_trained(str(config), str(checkpoint))


def test_program_writes_pictures_and_passes_over_what_is_none(exported, tmp_path):
    """predict.py as a program, in this environment."""
    cat = real_pictures()['cat']
    Image.fromarray(cat).save(tmp_path / 'cat.png')
    (tmp_path / 'notes.txt').write_text('not a picture')
    program = [sys.executable, exported.folder / 'predict.py']
    pictures = [tmp_path / 'notes.txt', tmp_path / 'cat.png']
    options = ['--out-dir', tmp_path / 'found', '--score-thr', '-1']
    done = run(*program, *pictures, *options)
    assert done.returncode == 1
    assert f'{tmp_path}/notes.txt: skipped, cannot identify image' in done.stderr
    found = Predictor(exported.folder, threads=1)(cat, -1)
    count = len(found['boxes'])
    lines = done.stdout.splitlines()
    assert lines[0] == f'{tmp_path}/cat.png: {count} found'
    assert len(lines) == 1 + count
    assert lines[1].split()[0] == CLASSES[found['labels'][0]]
    numbered = np.asarray(Image.open(tmp_path / 'found' / 'cat_masks.png'))
    # Later objects lie above earlier ones.
    expected = np.zeros((300, 451), int)
    for number, mask in enumerate(found['masks'], 1):
        expected[mask] = number
    assert np.array_equal(numbered, expected)
    drawn = np.asarray(Image.open(tmp_path / 'found' / 'cat.png'))
    assert drawn.shape == cat.shape and (drawn != cat).any()


@pytest.mark.slow
def test_program_in_an_environment_without_torch(exported, tmp_path):
    """A new virtual environment: numpy, Pillow, onnxruntime, and nothing of ours."""
    assert run(sys.executable, '-m', 'venv', tmp_path / 'venv').returncode == 0
    python = tmp_path / 'venv' / 'bin' / 'python'
    pip = (python, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check')
    installed = run(*pip, 'numpy', 'pillow', 'onnxruntime')
    if installed.returncode:
        reason = installed.stderr.strip().splitlines()[-1]
        pytest.skip(f'pip cannot install onnxruntime here: {reason}')
    for module in ('torch', 'mmdet', 'mmcv', 'mmdet_centermask'):
        assert run(python, '-c', f'import {module}', cwd=tmp_path).returncode, module
    cat = real_pictures()['cat']
    Image.fromarray(cat).save(tmp_path / 'cat.png')
    options = ['--out-dir', tmp_path / 'found', '--score-thr', '-1']
    done = run(
        python,
        exported.folder / 'predict.py',
        tmp_path / 'cat.png',
        *options,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    count = len(Predictor(exported.folder)(cat, -1)['boxes'])
    assert done.stdout.splitlines()[0] == f'{tmp_path}/cat.png: {count} found'


@pytest.mark.parametrize('tool', ['export_onnx', 'check_export', 'benchmark_deploy'])
def test_help_needs_no_torch(repository, tool):
    path = repository / 'tools' / f'{tool}.py'
    done = run(sys.executable, '-I', '-S', path, '-h')
    assert done.returncode == 0 and 'checkpoint' in done.stdout


def test_command_refuses_in_a_line(repository, exported, tmp_path, capsys):
    tool = load_tool(repository, 'export_onnx')
    assert tool.main([str(exported.config), 'none.pth', str(tmp_path)]) == 2
    assert capsys.readouterr().err == "error: checkpoint='none.pth' is not a file\n"


def test_check_command_has_a_row_for_each_runtime(
    repository, exported, tmp_path, capsys
):
    Image.fromarray(real_pictures()['face']).save(tmp_path / 'face.png')
    files = exported.config, exported.checkpoint, exported.folder
    tool = load_tool(repository, 'check_export')
    code = tool.main([*map(str, files), str(tmp_path / 'face.png')])
    rows = [r for r in capsys.readouterr().out.splitlines() if r.startswith('| face')]
    assert [row.split(' | ')[:3] for row in rows] == [
        ['| face.png', '151 x 201', 'onnxruntime'],
        ['| face.png', '151 x 201', 'openvino'],
    ]
    assert all(row.endswith('| ok |') for row in rows)
    assert code == 0
