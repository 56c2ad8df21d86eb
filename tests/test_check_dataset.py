"""`tools/check_dataset.py` and its hook: every file of a config, exit code 1."""

from __future__ import annotations

import importlib.util
import json
import logging
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image
from tiny_centermask import CONFIGS
from tiny_coco import CLASSES, annotation, rle, sound_coco, write_coco, write_pictures

from mmdet_centermask.checks import DatasetCheckHook, check_config
from mmdet_centermask.checks.checking import check_source
from mmdet_centermask.checks.sources import Source, find_sources
from mmdet_centermask.experiment import ExperimentError, check_data

REAL = Path(__file__).resolve().parents[2] / 'shared' / 'data'
MASKS = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)


def untracked(items, doing):
    return items


def dataset(root: Path, ann_file: str, **changes) -> dict:
    base = dict(
        type='CocoDataset',
        data_root=str(root),
        ann_file=ann_file,
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=CLASSES),
        pipeline=[MASKS],
    )
    return {**base, **changes}


@pytest.fixture
def fruit(tmp_path) -> Path:
    write_pictures(tmp_path / 'images')
    for split in ('train', 'val'):
        write_coco(tmp_path / f'{split}.json', sound_coco())
    return tmp_path


def fruit_config(root: Path, **changes) -> Config:
    val = dataset(root, 'val.json', test_mode=True)
    metric = dict(type='CocoMetric', ann_file=f'{root}/val.json', metric='segm')
    base = dict(
        default_scope='mmdet',
        model=dict(num_classes=2),
        train_dataloader=dict(dataset=dataset(root, 'train.json')),
        val_dataloader=dict(dataset=val),
        test_dataloader=dict(dataset=val),
        val_evaluator=metric,
        test_evaluator=[metric],
    )
    return Config({**base, **changes})


def breakage(path: Path, put_in) -> None:
    coco = json.loads(path.read_text())
    put_in(coco)
    write_coco(path, coco)


def problems(cfg: Config, **options) -> dict:
    """{file name: [severity: defect, ...]} of errors and warnings."""
    reports, _ = check_config(cfg, track=untracked, **options)
    return {
        Path(report.source.path).name: [
            f'{f.severity}: {f.what}' for f in report.findings if f.severity != 'info'
        ]
        for report in reports
    }


def test_sound_data(fruit):
    assert problems(fruit_config(fruit)) == {'train.json': [], 'val.json': []}


def test_each_file_once_with_all_its_uses(fruit):
    train, val = find_sources(fruit_config(fruit))[0]
    assert train.fields == ['train_dataloader.dataset'] and train.uses == {'masks'}
    assert val.fields == [
        'val_dataloader.dataset',
        'val_evaluator',
        'test_dataloader.dataset',
        'test_evaluator.0',
    ]
    assert val.uses == {'masks', 'evaluation'}
    assert val.folder == f'{fruit}/images/'


def test_wrappers_are_looked_into(fruit):
    parts = [dataset(fruit, 'train.json'), dataset(fruit, 'val.json', pipeline=[])]
    joined = dict(type='ConcatDataset', datasets=parts)
    wrapped = dict(type='RepeatDataset', times=2, dataset=joined)
    cfg = fruit_config(fruit, train_dataloader=dict(dataset=wrapped))
    train, val = find_sources(cfg, ('train',))[0]
    assert train.fields == ['train_dataloader.dataset.dataset.datasets.0']
    assert val.uses == set()


def test_polygons_only(fruit):
    pipeline = [dict(MASKS, poly2mask=False)]
    loader = dict(dataset=dataset(fruit, 'train.json', pipeline=pipeline))
    found = problems(fruit_config(fruit, train_dataloader=loader), splits=('train',))
    assert found['train.json'] == ['error: RLE mask where only polygons are read']


def test_what_is_not_coco_or_not_here_is_left_out(fruit):
    loader = dict(dataset=dict(type='VOCDataset', ann_file='a.txt'))
    remote = dict(dataset=dataset('s3://bucket', 'a.json'))  # type: ignore[arg-type]
    cfg = fruit_config(fruit, train_dataloader=loader, val_dataloader=remote)
    sources, left_out = find_sources(cfg, ('train', 'val'))
    assert [source.fields for source in sources] == [['val_evaluator']]
    assert left_out == [
        'train_dataloader.dataset is not checked: VOCDataset is no CocoDataset',
        'val_dataloader.dataset is not checked: its file is not on this disk',
    ]


def test_missing_file_and_folder(fruit):
    (fruit / 'train.json').unlink()
    cfg = fruit_config(fruit)
    cfg.val_dataloader.dataset.data_prefix.img = 'photos/'
    found = problems(cfg, splits=('train', 'val'))
    assert found['train.json'] == [f'error: {fruit}/train.json does not exist']
    assert found['val.json'] == [f'error: {fruit}/photos/ is no folder']


def test_labels_that_differ_between_train_and_val(fruit):
    breakage(fruit / 'val.json', lambda coco: coco['categories'].reverse())
    found = problems(fruit_config(fruit))
    assert found['train.json'] == []
    assert found['val.json'][0] == (
        f"error: label 0 is 'pear' here and 'apple' in {fruit}/train.json"
    )
    assert found['val.json'][1].startswith('warning: CLASS ORDER: 2 of 2 labels')


def test_evaluator_that_does_not_know_the_pictures(fruit):
    coco = sound_coco()
    del coco['images'][1], coco['annotations'][2]
    write_coco(fruit / 'other.json', coco)
    metric = dict(type='CocoMetric', ann_file=f'{fruit}/other.json')
    found = problems(fruit_config(fruit, val_evaluator=metric), splits=('val',))
    assert found == {
        'val.json': [
            f'error: image that val_evaluator.ann_file={fruit}/other.json does not know'
        ],
        'other.json': [],
    }


def test_class_numbers_are_said_once(fruit):
    found = problems(fruit_config(fruit, model=dict(num_classes=80)))
    assert found == {
        'train.json': ['error: the data has 2 classes, the model 80'],
        'val.json': [],
    }


# The command


@pytest.fixture(scope='module')
def tool(repository):
    path = repository / 'tools' / 'check_dataset.py'
    spec = importlib.util.spec_from_file_location('check_dataset', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_command_on_sound_data(fruit, tool, capsys):
    fruit_config(fruit).dump(fruit / 'fruit.py')
    assert tool.main([str(fruit / 'fruit.py')]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f'{fruit}/train.json  (train_dataloader.dataset)',
        '  2 images, 3 annotations, 2 categories',
        '  nothing to mend',
        '',
        f'{fruit}/val.json  (val_dataloader.dataset, val_evaluator, '
        'test_dataloader.dataset, test_evaluator.0)',
        '  2 images, 3 annotations, 2 categories',
        '  nothing to mend',
        '',
        '0 errors, 0 warnings in 2 files',
    ]


def test_command_on_broken_data(fruit, tool, capsys):
    def defects(coco):
        coco['annotations'][0]['segmentation'] = [[10, 5]]
        coco['annotations'] += [annotation(14, [-30, 5, 60, 9])]

    breakage(fruit / 'train.json', defects)
    fruit_config(fruit).dump(fruit / 'fruit.py')
    drawings = fruit / 'drawn'
    command = [str(fruit / 'fruit.py'), '--splits', 'train', '--draw', str(drawings)]
    assert tool.main(command) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:9] == [
        'severity  count finding',
        'error         1 polygon of fewer than 3 points',
        '                annotation 11',
        '                -> remove it, or the object if it has no other; '
        'it is dropped, and',
        '                evaluation stops at it or takes it for a box',
        'warning       1 box reaches out of the picture',
        '                annotation 14',
    ]
    assert lines[-1] == '1 error, 2 warnings in 1 file'
    names = [path.name for path in sorted(drawings.iterdir())]
    assert names == [
        'train-box-reaches-out-of-the-picture-1.png',
        'train-mask-outside-the-picture-1.png',
        'train-polygon-of-fewer-than-3-points-1.png',
    ]
    # Scale 4, margin 40: box 14 leaves the picture on the left, x = -30 is off the
    # drawing and kept at its edge, y = 5 is line 60. The picture's frame is blue.
    with Image.open(drawings / names[0]) as drawing:
        assert drawing.size == (480, 400)
        assert drawing.getpixel((20, 60)) == (230, 40, 40)
        assert drawing.getpixel((300, 40)) == (60, 140, 230)


def test_command_on_a_file_of_another_kind(fruit, tool, capsys):
    (fruit / 'train.json').write_text('0 0.5 0.5 0.1 0.1\n')
    fruit_config(fruit).dump(fruit / 'fruit.py')
    assert tool.main([str(fruit / 'fruit.py'), '--splits', 'train']) == 1
    # Where a line breaks depends on the length of the folder's name.
    out = ' '.join(capsys.readouterr().out.split())
    assert f'error 1 {fruit}/train.json looks like YOLO labels' in out


def test_every_drawing_is_made_however_broken_the_data(fruit, tool, capsys):
    """NaN, missing pictures, unknown images, RLE of another size."""

    def defects(coco):
        coco['images'].append(dict(id=3, file_name='3.png', width=4000, height=10))
        coco['annotations'] += [
            annotation(14, [float('nan'), 5, 9, 9]),
            annotation(15, [5, 5, 9, 9], image=9),
            annotation(16, [5, 5, 9, 9], image=3),
            annotation(17, [5, 5, 9, 9], segmentation=rle(0, 0, 9, 9, size=(9, 9))),
            annotation(18, [5, 5, 0, 9], segmentation=[[5, 5, float('nan'), 6, 7, 8]]),
            annotation(
                19, [5, 5, 9, 9], segmentation={'size': [80, 100], 'counts': 'x'}
            ),
            annotation(20, [5, 5, 9, 9], segmentation=[[1, 2, 3]], image=2),
        ]

    breakage(fruit / 'train.json', defects)
    fruit_config(fruit).dump(fruit / 'fruit.py')
    drawings = fruit / 'drawn'
    command = [str(fruit / 'fruit.py'), '--splits', 'train', '--draw', str(drawings)]
    assert tool.main(command) == 1
    drawn = {path.stem.rsplit('-', 1)[0] for path in drawings.iterdir()}
    out = capsys.readouterr().out
    kinds = {
        line.split(maxsplit=2)[2]
        for line in out.splitlines()
        if line.startswith(('error ', 'warning '))
    }
    assert kinds - {'annotation of an unknown image'} == {
        'NaN or infinity in bbox, area or segmentation',
        'RLE of another size than the picture',
        'RLE that does not add up to its size',
        'box of zero area',
        'box reaches out of the picture',
        'mask outside its box',
        'mask outside the picture',
        'missing picture file',
        'polygon of fewer than 3 points',
    }
    # All but the one that belongs to no picture.
    assert len(drawn) == len(kinds) - 1


# The hook


class Runner(SimpleNamespace):
    """What the hook needs of a runner; keeps what is logged."""

    def __init__(self, cfg: Config, *hooks) -> None:
        super().__init__(cfg=cfg, hooks=list(hooks), logger=logging.getLogger('check'))


def test_hook_says_one_line_when_all_is_well(fruit, caplog):
    with caplog.at_level(logging.INFO, 'check'):
        DatasetCheckHook().before_train(Runner(fruit_config(fruit)))
    assert caplog.messages == [
        'dataset check: 0 errors, 0 warnings in 2 files; tools/check_dataset.py CONFIG '
        'shows all of it'
    ]


def test_hook_stops_at_contradicting_classes(fruit, caplog):
    cfg = fruit_config(fruit, model=dict(num_classes=80))
    with pytest.raises(ExperimentError) as error:
        DatasetCheckHook().before_train(Runner(cfg))
    assert str(error.value) == (
        'the data has 2 classes, the model 80: set num_classes=2; background is not '
        'counted'
    )


def test_hook_logs_defects_and_goes_on(fruit, caplog):
    def defects(coco):
        coco['annotations'][0]['bbox'] = [10, 5, 0, 50]

    breakage(fruit / 'train.json', defects)
    (fruit / 'images' / '2.png').unlink()
    DatasetCheckHook().before_train(Runner(fruit_config(fruit)))
    assert [
        (r.levelname, r.message.partition(': ')[2][:36]) for r in caplog.records
    ] == [
        ('ERROR', '1 x box of zero area (annotation 11)'),
        ('ERROR', '1 x missing picture file (image 2.pn'),
        ('WARNING', '1 x mask outside its box (annotation'),
        ('ERROR', '1 x missing picture file (image 2.pn'),
    ]


def test_hook_is_switched_off_by_one_field(fruit, caplog):
    cfg = fruit_config(fruit, model=dict(num_classes=80))
    DatasetCheckHook(enabled=False).before_train(Runner(cfg))
    assert caplog.messages == []


def test_commands_check_before_mmdet_reads_and_once(fruit, caplog):
    hook = DatasetCheckHook()
    runner = Runner(fruit_config(fruit), hook)
    with caplog.at_level(logging.INFO, 'check'):
        check_data(runner, ('train', 'val'))
        hook.before_train(runner)
        hook.before_val(runner)
    assert len(caplog.messages) == 1
    (fruit / 'val.json').write_text('[]')
    with pytest.raises(ExperimentError, match=r'val.json is a JSON list'):
        check_data(runner, ('test',))


def test_large_files_are_not_parsed_at_step_0(fruit, monkeypatch):
    """Their classes are compared all the same."""
    breakage(fruit / 'train.json', lambda coco: coco['annotations'][0].pop('bbox'))
    breakage(fruit / 'train.json', lambda coco: coco['categories'].reverse())
    module = 'mmdet_centermask.checks.checking'
    monkeypatch.setattr(f'{module}.STEP0_BYTES', 100)
    found = problems(fruit_config(fruit), splits=('train',), depth='step0')
    assert len(found['train.json']) == 1
    assert found['train.json'][0].startswith('warning: CLASS ORDER')


def test_few_pictures_at_step_0(fruit, monkeypatch):
    coco = sound_coco()
    coco['images'] += [
        dict(id=i, file_name=f'{i}.png', width=9, height=9) for i in range(3, 103)
    ]
    write_coco(fruit / 'train.json', coco)
    reports, _ = check_config(fruit_config(fruit), ('train',), 'step0', track=untracked)
    (finding,) = [f for f in reports[0].findings if f.severity == 'error']
    assert finding.what == 'missing picture file'
    assert finding.count == 31  # of 32, spread over all; the first one is there


def test_both_hooks_are_in_every_runtime():
    hooks = Config.fromfile(CONFIGS / '_base_' / 'default_runtime.py').default_hooks
    assert hooks.dataset_check == dict(type='DatasetCheckHook')
    assert hooks.startup_check == dict(type='StartupCheckHook')


# Real data, whose facts its README states


REAL_FILES = {
    'coco_permissive/annotations/instances_train2017.json': (59, 583, 6, 0),
    'coco_permissive/annotations/instances_val2017.json': (66, 560, 8, 2),
    'coco_ci8_ccby/annotations/instances.json': (8, 121, 2, 0),
    'dsb2018_nuclei/annotations/instances_val.json': (117, 5036, 0, 0),
    'fruits_nuts/annotations/instances_trainval.json': (18, 165, 0, 0),
}


@pytest.mark.skipif(not REAL.exists(), reason='needs ../shared/data')
@pytest.mark.parametrize('name', REAL_FILES)
def test_real_data(name):
    images, annotations, crowds, empty = REAL_FILES[name]
    root = REAL / name.split('/')[0]
    folder = root / name.rpartition('_')[2].removesuffix('.json')
    source = Source(
        str(REAL / name),
        ['val_dataloader.dataset'],
        {'masks', 'evaluation'},
        str(folder if folder.exists() else root / 'images'),
    )
    report = check_source(source, 'headers', untracked)
    assert report.contents.startswith(f'{images} images, {annotations} annotations')
    counts = {f.what: f.count for f in report.findings if 'category' not in f.what}
    expected = {'crowd region': crowds, 'image without an annotation': empty}
    assert counts == {what: count for what, count in expected.items() if count}


@pytest.mark.slow
def test_hundred_thousand_annotations(tmp_path, capsys):
    """Counted right; how long it takes is printed, and asked to be under a minute."""
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    circle = np.stack([30 + 20 * np.cos(angles), 40 + 20 * np.sin(angles)], axis=1)
    polygon = circle.round(2).ravel().tolist()
    code = rle(10, 20, 40, 40)
    items = [
        annotation(
            i,
            [10, 20, 40, 40],
            image=i // 10,
            segmentation=code if i % 5 else [polygon],
        )
        for i in range(100_000)
    ]
    for i in range(0, 900, 5):  # polygons
        items[i]['segmentation'] = [polygon[:4]]
    for i in range(1001, 2000, 5):  # codes
        items[i]['segmentation'] = rle(10, 20, 40, 40, size=(100, 80))
    for i in range(3000, 3100):
        items[i]['bbox'] = [10, 20, 0, 40]
    for i in range(50_000, 50_007):
        items[i]['id'] = 0
    coco = dict(
        images=[
            dict(id=i, file_name=f'{i}.jpg', width=100, height=80)
            for i in range(10_000)
        ],
        annotations=items,
        categories=[dict(id=1, name='apple')],
    )
    path = write_coco(tmp_path / 'large.json', coco)
    start, cpu = time.perf_counter(), time.process_time()
    report = check_source(Source(str(path), ['train'], {'masks'}), 'headers', untracked)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    with capsys.disabled():
        print(f'\n100,000 annotations: {seconds:.1f} s, {cpu:.1f} s of a core')
    assert {f.what: f.count for f in report.findings} == {
        'polygon of fewer than 3 points': 180,
        'RLE of another size than the picture': 200,
        'mask outside its box': 100,
        'box of zero area': 100,
        'annotation id used before': 7,
    }
    assert cpu < 60
