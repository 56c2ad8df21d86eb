"""The table that `make demo` ends with."""

import json
import runpy
import subprocess
import sys

import pytest


@pytest.fixture(scope='module')
def tool(repository):
    return repository / 'tools' / 'ap_table.py'


@pytest.fixture(scope='module')
def functions(tool):
    return runpy.run_path(str(tool))


def write_run(work_dir, time, metrics):
    folder = work_dir / time
    folder.mkdir(parents=True)
    (folder / f'{time}.json').write_text(json.dumps(metrics))
    (folder / 'other.json').write_text('not a metrics file')
    return folder / f'{time}.json'


def test_newest_run_is_taken(functions, tmp_path):
    write_run(tmp_path, '20240102_000000', {})
    newest = write_run(tmp_path, '20240301_000000', {})
    assert functions['newest_metrics'](tmp_path) == newest


def test_table_has_boxes_and_masks_and_marks_what_is_missing(functions):
    metrics = {
        'coco/bbox_mAP': 0.6126,
        'coco/bbox_mAP_s': -1.0,
        'coco/segm_mAP': 0.5,
        'coco/segm_mAP_75': 0.0,
    }
    head, box, mask = functions['ap_table'](metrics).splitlines()
    assert head.endswith('AP large')
    assert box.split() == ['box', '0.613', '-', '-', '-', '-', '-']
    assert mask.split() == ['mask', '0.500', '-', '0.000', '-', '-', '-']
    assert len(head) == len(box) == len(mask)


def test_folder_without_a_run_is_one_line(tool, tmp_path):
    done = subprocess.run(
        [sys.executable, tool, tmp_path], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == f"work_dir='{tmp_path}' holds no test run\n"
