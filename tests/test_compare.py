"""Detectors side by side: what the command reads, tables and plots, one tiny run."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from pycocotools import mask as coco_mask
from tiny_centermask import CONFIGS, talkative, tiny_config, tiny_model

from mmdet_centermask.benchmark.comparison import (
    Data,
    Entrant,
    compare,
    find_data,
    on_data,
    parse_entrant,
    spread,
)
from mmdet_centermask.benchmark.comparison_report import (
    comparison_plot,
    comparison_table,
    write_comparison,
)
from mmdet_centermask.benchmark.workload import Workload
from mmdet_centermask.experiment import ExperimentError


def test_an_entrant_by_name():
    entrant = parse_entrant('condinst_r50_fpn_ms-poly-90k_coco_instance')
    assert entrant.checkpoint is None and entrant.mode == 'default'
    assert entrant.name == 'condinst_r50_fpn_ms-poly-90k_coco_instance'
    assert Path(entrant.config).is_file()


def test_an_entrant_with_checkpoint_and_mode(tmp_path):
    checkpoint = tmp_path / 'a.pth'
    checkpoint.touch()
    name = 'centermask-lite_v19-slim_fpn_nuclei'
    entrant = parse_entrant(f'{name}.py:{checkpoint}@fast')
    assert entrant.config == str(CONFIGS / 'nuclei' / f'{name}.py')
    assert entrant[0] == f'{name} @fast'
    assert entrant[2:] == (str(checkpoint), 'fast')


@pytest.mark.parametrize(
    'text, said',
    [
        ('no_such_config', "config='no_such_config'"),
        ('centermask_v39_fpn_ms-3x_coco:no.pth', "checkpoint='no.pth'"),
        ('centermask_v39_fpn_ms-3x_coco@quick', "mode='quick'"),
    ],
)
def test_what_cannot_enter(text, said):
    with pytest.raises(ExperimentError, match=said):
        parse_entrant(text)


def test_pictures_are_spread_evenly():
    assert spread('abcdefghij', 3) == ['a', 'd', 'g']
    assert spread('abc', 5) == ['a', 'b', 'c']


def test_data_is_a_folder_or_a_json_with_one(tmp_path):
    for name in ('b.jpg', 'a.PNG', 'notes.txt'):
        (tmp_path / name).touch()
    files = str(tmp_path / 'a.PNG'), str(tmp_path / 'b.jpg')
    assert find_data(tmp_path, None, 5) == Data(files)
    truth = tmp_path / 'truth.json'
    truth.write_text(json.dumps(dict(images=[dict(file_name='b.jpg')])))
    assert find_data(truth, tmp_path, 5) == Data(files[1:], str(truth), str(tmp_path))
    with pytest.raises(ExperimentError, match='--images=None'):
        find_data(truth, None, 5)
    with pytest.raises(ExperimentError, match='neither a folder nor a file'):
        find_data(tmp_path / 'no', None, 5)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ExperimentError, match='no pictures'):
        find_data(tmp_path / 'empty', None, 5)


def test_two_of_a_name_are_refused():
    twice = [Entrant('x', 'x.py', None, 'default')] * 2
    with pytest.raises(ExperimentError, match='share a name'):
        compare(twice, Data(()), Workload(''), 1)


def row(name: str, **changes) -> dict:
    numbers = dict(
        name=name,
        mode='default',
        shape=[600, 800],
        parameters=44_400_000,
        flops=210_000_000_000,
        memory_mb=1500.2,
        ms=[190.0, 200.4, 230.0],
        found=50,
        box_ap=None,
        mask_ap=None,
    )
    return numbers | changes


FAILED = dict(name='broken', mode='default', error='TypeError: no such head')


def test_table_says_who_did_not_run_and_why():
    lines = comparison_table([row('a', box_ap=0.4, mask_ap=0.3512), FAILED])
    lines = lines.splitlines()
    cells = [[c.strip() for c in line.strip('|').split('|')] for line in lines[2:4]]
    assert cells == [
        ['a', '600 x 800', '44.4', '210.0', '1500', '200 (190-230)', '0.400', '0.351'],
        ['broken', 'did not run', *['-'] * 6],
    ]
    assert lines[-1] == 'broken: TypeError: no such head'


def test_plot_of_accuracy_leaves_out_who_has_none():
    rows = [row('a', mask_ap=0.3), row('b'), FAILED, row('c', mask_ap=0.0)]
    (axes,) = comparison_plot(rows).axes
    assert [line.get_xydata().tolist() for line in axes.lines] == [
        [[200.4, 0.3]],
        [[200.4, 0.0]],
    ]
    assert [text.get_text() for text in axes.texts] == ['a', 'c']


def test_plot_of_speed_alone_has_the_quickest_on_top():
    rows = [row('slow', ms=[1, 9, 9]), row('quick', ms=[1, 2, 3]), FAILED]
    (axes,) = comparison_plot(rows).axes
    assert [bar.get_width() for bar in axes.patches] == [9, 2]
    assert [label.get_text() for label in axes.get_yticklabels()] == ['slow', 'quick']


def test_csv_has_all_numbers(tmp_path):
    write_comparison([row('a', mask_ap=0.25), FAILED], tmp_path)
    with (tmp_path / 'compare.csv').open() as file:
        first, second = csv.DictReader(file)
    assert (first['ms_lower'], first['ms_median']) == ('190.0', '200.4')
    assert (first['flops'], first['mask_ap']) == ('210000000000', '0.25')
    assert second['error'] == FAILED['error'] and second['ms_median'] == ''
    assert (tmp_path / 'compare.png').stat().st_size > 1000
    assert (tmp_path / 'compare.md').read_text().startswith('| detector')


def square_data(folder: Path) -> Data:
    """Two pictures of one square in COCO's format, of one class."""
    mask = np.zeros((64, 96), np.uint8, order='F')
    mask[16:48, 16:48] = 1
    rle = coco_mask.encode(mask)
    rle['counts'] = rle['counts'].decode()
    images, annotations = [], []
    for i in (1, 2):
        cv2.imwrite(str(folder / f'{i}.png'), mask[..., None].repeat(3, 2) * 200)
        images.append(dict(id=i, file_name=f'{i}.png', height=64, width=96))
        annotations.append(
            dict(id=i, image_id=i, category_id=5, bbox=[16, 16, 32, 32], area=1024)
            | dict(segmentation=rle, iscrowd=0)
        )
    truth = dict(images=images, annotations=annotations)
    truth['categories'] = [dict(id=5, name='square')]
    (folder / 'truth.json').write_text(json.dumps(truth))
    return find_data(folder / 'truth.json', folder, 2)


def tiny_file(path: Path) -> str:
    cfg = Config.fromfile(
        CONFIGS / 'centermask_lite' / 'centermask-lite_v19-slim-dw_fpn_ms-4x_coco.py'
    )
    cfg.model = tiny_config(1)
    cfg.test_pipeline[1].scale = (96, 64)
    cfg.test_dataloader.dataset.pipeline = cfg.test_pipeline
    cfg.dump(path)
    return str(path)


def test_a_config_on_other_data(tmp_path):
    data = square_data(tmp_path)
    cfg = on_data(Config.fromfile(tiny_file(tmp_path / 'tiny.py')), data)
    dataset = cfg.test_dataloader.dataset
    assert dataset.metainfo.classes == ('square',)
    assert dataset.ann_file == cfg.test_evaluator.ann_file == str(data.annotations)
    assert dataset.data_prefix.img == f'{tmp_path}/'
    assert [t.scale for t in dataset.pipeline if t.type == 'Resize'] == [(96, 64)]


@pytest.mark.slow
def test_a_comparison(tmp_path):
    data = square_data(tmp_path)
    path = tiny_file(tmp_path / 'tiny.py')
    checkpoint = str(tmp_path / 'tiny.pth')
    torch.save(talkative(tiny_model(1)).state_dict(), checkpoint)
    broken = Config.fromfile(path)
    broken.model.neck.out_channels = 31
    broken.dump(tmp_path / 'broken.py')
    entrants = [
        Entrant('plain', path, None, 'default'),
        Entrant('trained', path, checkpoint, 'default'),
        Entrant('broken', str(tmp_path / 'broken.py'), None, 'default'),
    ]
    workload = Workload('', detections=3, threads=1)
    plain, trained, broken = compare(entrants, data, workload, 2)
    assert 'neck.out_channels=31' in broken['error'] and 'ms' not in broken
    assert plain['mask_ap'] is None
    assert 0 <= trained['mask_ap'] < 0.5
    assert plain['found'] == trained['found'] == 3
    assert plain['shape'] == [64, 96]
    assert plain['parameters'] == trained['parameters']
    assert plain['ms'] == sorted(plain['ms']) and plain['ms'][0] > 0
    assert plain['memory_mb'] > 100
