"""The report: matches by hand, AP by hand, and a page that a browser can show."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from pycocotools import mask as coco_mask

from mmdet_centermask.experiment import ExperimentError
from mmdet_centermask.report import read_run, render_page
from mmdet_centermask.report.average_precision import (
    THRESHOLDS,
    curve_of,
    evaluate,
    precision_at_recall,
    score_curve,
    summary,
)
from mmdet_centermask.report.crops import surroundings
from mmdet_centermask.report.matching import (
    Verdict,
    confusion,
    match,
    match_pictures,
)
from mmdet_centermask.report.mistakes import (
    count_verdicts,
    worst_false_alarms,
    worst_misses,
)

SIZE = 80
RIGHT, CROWD, CLASS = Verdict.RIGHT, Verdict.CROWD, Verdict.CLASS
DOUBLE, OUTLINE, NOTHING = Verdict.DOUBLE, Verdict.OUTLINE, Verdict.NOTHING


@pytest.mark.parametrize(
    'ious, labels, truth, crowd, verdicts, objects',
    [
        # The surer one gets the object, the other has found it again.
        ([[0.6], [0.9]], [1, 1], [1], [0], [RIGHT, DOUBLE], [0, -1]),
        # Half an overlap is enough, and less is a poor outline from a tenth on.
        ([[0.5]], [1], [1], [0], [RIGHT], [0]),
        ([[0.49]], [1], [1], [0], [OUTLINE], [-1]),
        ([[0.1]], [1], [1], [0], [OUTLINE], [-1]),
        ([[0.09]], [1], [1], [0], [NOTHING], [-1]),
        # An object goes to its own class first, whatever is surer.
        ([[0.9], [0.6]], [2, 1], [1], [0], [DOUBLE, RIGHT], [-1, 0]),
        ([[0.9]], [2], [1], [0], [CLASS], [0]),
        # Little overlap with another class is nothing.
        ([[0.4]], [2], [1], [0], [NOTHING], [-1]),
        # The best free object, not the first.
        ([[0.6, 0.8], [0.7, 0.9]], [1, 1], [1, 1], [0, 0], [RIGHT, RIGHT], [1, 0]),
        # A crowd takes any number of its own class and none of others.
        (
            [[0.8], [0.7], [0.9], [0.4]],
            *([1, 1, 2, 1], [1], [1]),
            *([CROWD, CROWD, NOTHING, NOTHING], [-1, -1, -1, -1]),
        ),
        # An object beside a crowd is found all the same.
        ([[0.9, 0.8]], [1], [1, 1], [1, 0], [RIGHT], [1]),
        # Nothing said, nothing there.
        (np.zeros((0, 1)), [], [1], [0], [], []),
        (np.zeros((1, 0)), [1], [], [], [NOTHING], [-1]),
    ],
)
def test_match(ious, labels, truth, crowd, verdicts, objects):
    found = match(
        np.array(ious, float),
        np.array(labels, int),
        np.array(truth, int),
        np.array(crowd, bool),
    )
    assert found.verdicts == verdicts
    assert found.objects.tolist() == objects


def test_score_curve_of_four_detections():
    """Three objects; right at 0.9 and 0.5, wrong at 0.7 and 0.3."""
    curve = curve_of(
        np.array([0.9, 0.7, 0.5, 0.3]), np.array([True, False, True, False]), objects=3
    )
    at = {round(float(score), 2): i for i, score in enumerate(THRESHOLDS)}
    for score, precision, recall in [
        (0.95, -1, 0),
        (0.9, 1, 1 / 3),
        (0.7, 1 / 2, 1 / 3),
        (0.5, 2 / 3, 2 / 3),
        (0.3, 2 / 4, 2 / 3),
        (0.01, 2 / 4, 2 / 3),
    ]:
        i = at[score]
        assert curve.precision[i] == pytest.approx(precision)
        assert curve.recall[i] == pytest.approx(recall)
        if precision > 0:
            f1 = 2 * precision * recall / (precision + recall)
            assert curve.f1[i] == pytest.approx(f1)
    assert curve.f1[at[0.95]] == 0


@pytest.mark.parametrize(
    'boxes, expected',
    [
        # A third of 30 on every side.
        ([[20, 30, 30, 30]], (10, 20, 60, 70)),
        # At least 48 pixels: (48 - 6) / 2 on every side.
        ([[40, 40, 6, 6]], (19, 19, 67, 67)),
        # Never beyond the picture, which is 100 wide and 80 high.
        ([[-10, 60, 200, 40]], (0, 46, 100, 80)),
        # All of two boxes.
        ([[30, 20, 10, 10], [60, 40, 10, 20]], (16, 6, 84, 74)),
    ],
)
def test_surroundings(boxes, expected):
    assert surroundings(boxes, 80, 100) == expected


# A run: 3 pictures with squares, of which one has no objects.


def square(x: int, y: int, side: int) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[y : y + side, x : x + side] = 1
    return mask


def entry(picture: int, category: int, mask: np.ndarray, **more) -> dict:
    rle = coco_mask.encode(np.asfortranarray(mask))
    box, area = coco_mask.toBbox(rle).tolist(), int(coco_mask.area(rle))
    rle['counts'] = rle['counts'].decode()
    return dict(
        image_id=picture,
        category_id=category,
        bbox=box,
        area=area,
        segmentation=rle,
        **more,
    )


TRUTH = [
    (1, 7, square(10, 10, 20)),
    (1, 9, square(40, 40, 36)),
    (2, 7, square(10, 10, 20)),
    (2, 7, square(40, 10, 20)),
]
FOUND = [
    (1, 7, square(10, 10, 20), 0.9),  # right
    (1, 7, square(40, 40, 36), 0.8),  # a 9
    (2, 7, square(10, 10, 20), 0.7),  # right
    (2, 7, square(10, 12, 20), 0.6),  # again: IoU 0.82
    (2, 7, square(52, 10, 20), 0.5),  # 8 of 20 columns: IoU 0.25
    (3, 9, square(30, 30, 20), 0.4),  # nothing is there
    (2, 7, square(41, 10, 20), 0.1),  # right, but unsure
]
NAMES = {7: 'pear', 9: '<plum>'}


def write_run(folder: Path, found=FOUND, truth=TRUTH, names=NAMES, **evaluator) -> Path:
    """Config, truth, results and pictures in ``folder``; returns the config's path."""
    coco = dict(
        images=[
            dict(id=i, height=SIZE, width=SIZE, file_name=f'{i}.png') for i in (1, 2, 3)
        ],
        categories=[dict(id=i, name=name) for i, name in names.items()],
        annotations=[
            entry(*row, id=i, iscrowd=0) for i, row in enumerate(truth, start=1)
        ],
    )
    (folder / 'truth.json').write_text(json.dumps(coco))
    results = [entry(*row, score=score) for *row, score in found]
    for kind in ('bbox', 'segm'):
        (folder / f'results.{kind}.json').write_text(json.dumps(results))
    (folder / 'pictures').mkdir(exist_ok=True)
    for i in (1, 2):  # the third is lost
        rng = np.random.default_rng(i)
        pixels = rng.integers(60, 200, (SIZE, SIZE, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / 'pictures' / f'{i}.png'), pixels)
    dataset = dict(
        type='CocoDataset',
        data_root=str(folder),
        data_prefix=dict(img='pictures/'),
        metainfo=dict(classes=tuple(names.values())),
    )
    settings = dict(type='CocoMetric', ann_file=str(folder / 'truth.json'), **evaluator)
    config = Config(
        dict(
            test_dataloader=dict(batch_size=2, dataset=dataset), test_evaluator=settings
        )
    )
    config.dump(folder / 'squares.py')
    return folder / 'squares.py'


@pytest.fixture
def run(tmp_path):
    return read_run(write_run(tmp_path), str(tmp_path / 'results'))


def test_ap_by_hand(run):
    """Of class 7: right, wrong, right, wrong, wrong, right; three objects.

    The last, shifted by a pixel of 20, is right up to an IoU of 19/21 = 0.905, so
    up to 0.90 of the ten thresholds. Precision at a recall is the best one at it or
    beyond: 1 up to 1/3, 2/3 up to 2/3, 3/6 up to 1 (0 at IoU 0.95).
    Recalls are 0, 0.01, ... 1: 34, 33 and 34 of them. Class 9 has no right one.
    """
    evaluation = evaluate(run, 'segm')
    pear = summary(evaluation, 0)
    full, short = (34 + 33 * 2 / 3 + 34 / 2) / 101, (34 + 33 * 2 / 3) / 101
    assert pear['mAP_50'] == pear['mAP_75'] == pytest.approx(full)
    assert pear['mAP'] == pytest.approx((9 * full + short) / 10)
    # Among the small the square of 36 x 36 counts for nothing: right, right, wrong...
    full_s, short_s = (67 + 34 * 3 / 5) / 101, 67 / 101
    assert pear['mAP_s'] == pytest.approx((9 * full_s + short_s) / 10)
    assert pear['mAP_m'] == -1 and pear['mAP_l'] == -1
    assert pear['AR'] == pytest.approx((9 * 1 + 2 / 3) / 10)
    assert summary(evaluation)['mAP_50'] == pytest.approx(full / 2)
    curve = precision_at_recall(evaluation, 0, iou=0.5)
    assert curve[[0, 33, 34, 66, 67, 100]] == pytest.approx(
        [1, 1, *[2 / 3] * 2, 0.5, 0.5]
    )
    assert precision_at_recall(evaluation, iou=0.5)[0] == pytest.approx(0.5)


def test_score_curve_counts_all_classes(run):
    """At 0.7: two right of three detections, two of four objects."""
    curve = score_curve(evaluate(run, 'segm'))
    i = THRESHOLDS.searchsorted(0.695)
    assert curve.precision[i] == pytest.approx(2 / 3)
    assert curve.recall[i] == pytest.approx(2 / 4)


def test_mistakes_and_confusion(run):
    pictures = match_pictures(run, 0.3)
    assert count_verdicts(pictures) == {
        RIGHT: 2,
        CROWD: 0,
        CLASS: 1,
        DOUBLE: 1,
        OUTLINE: 1,
        NOTHING: 1,
    }
    # Rows: pear, plum, nothing; columns: pear, plum, missed.
    assert confusion(run, pictures).tolist() == [[2, 0, 1], [1, 0, 0], [2, 1, 0]]
    alarms = worst_false_alarms(run, pictures, 3)
    assert [(m.verdict, m.picture) for m in alarms] == [
        (CLASS, 1),
        (DOUBLE, 2),
        (OUTLINE, 2),
    ]
    assert [round(m.iou, 2) for m in alarms] == [1.0, 0.82, 0.25]
    assert alarms[0].truth['category_id'] == 9
    (miss,) = worst_misses(run, pictures, 3)
    assert miss.truth['bbox'][:2] == [40, 10]
    # What comes nearest has a score below the threshold.
    assert miss.detection['score'] == 0.1
    assert miss.iou == pytest.approx(19 / 21)


def test_misses_are_sorted_by_size(tmp_path):
    run = read_run(write_run(tmp_path, found=[]), str(tmp_path / 'results'))
    misses = worst_misses(run, match_pictures(run, 0.3), 2)
    assert [m.truth['area'] for m in misses] == [36 * 36, 20 * 20]
    assert [m.detection for m in misses] == [None, None]


class Page(HTMLParser):
    """Tags, attributes that name a file, and whether every tag is closed."""

    VOID = {'meta', 'img', 'path', 'polyline', 'br'}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for name, v in attrs if name in ('src', 'href', 'srcset')]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, self.getpos()


def test_page_needs_no_other_file(run):
    text = render_page(run)
    page = Page(text)
    assert page.open == []
    assert 'script' not in page.tags and 'link' not in page.tags
    assert 'url(' not in text and '@import' not in text
    assert page.links and all(
        v.startswith('data:image/jpeg;base64,') for v in page.links
    )
    # F1 is 2/5 at 0.9, 2/6 at 0.8, 4/7 down to 0.61 and never higher: three detections
    # are compared, with one false alarm and one miss, each with its picture.
    assert text.count('<img') == 2
    assert 'best F1, at score 0.61' in text


def test_page_shows_the_numbers(run):
    text = render_page(run, score_thr=0.3)
    full, short = (34 + 33 * 2 / 3 + 34 / 2) / 101, (34 + 33 * 2 / 3) / 101
    assert f'<b>{(9 * full + short) / 20:.3f}</b>mask AP' in text
    cells = re.findall(r'<td class="(?:right|wrong)"[^>]*>(\d*)</td>', text)
    assert cells == ['2', '', '1', '1', '', '', '2', '1', '']
    assert text.count('the picture cannot be read') == 1  # the third
    assert '&lt;plum&gt;' in text and '<plum>' not in text


def test_speed_is_what_the_run_measured(tmp_path):
    config = write_run(tmp_path)
    (tmp_path / 'metrics.json').write_text('{"time": 0.5, "data_time": 0.1}')
    args = (config, str(tmp_path / 'results'))
    text = render_page(read_run(*args, tmp_path / 'metrics.json'))
    # Two pictures in a step.
    assert '0.250 s a picture, 4.0 pictures a second, in batches of' in text
    assert '0.050 s of it' in text
    assert 'pictures a second' not in render_page(read_run(*args))


def test_nothing_detected_is_a_page_too(tmp_path):
    run = read_run(write_run(tmp_path, found=[]), str(tmp_path / 'results'))
    page = render_page(run)
    assert '<b>0.000</b>mask AP' in page and 'There are none.' in page


def test_many_classes_have_a_list_of_confusions(tmp_path):
    names = {i: f'kind {i}' for i in range(1, 31)}
    run = read_run(write_run(tmp_path, names=names), str(tmp_path / 'results'))
    page = render_page(run)
    assert 'class="confusion"' not in page
    assert re.search(r'<th>kind 9</th><th>kind 7</th><td>1</td>', page)


def test_boxes_alone(tmp_path):
    config = write_run(tmp_path)
    (tmp_path / 'results.segm.json').unlink()
    run = read_run(config, str(tmp_path / 'results'))
    assert run.kind == 'bbox'
    assert '</b>mask AP' not in render_page(run)


def test_settings_of_the_dense_metric_count(tmp_path):
    config = write_run(tmp_path, max_dets=1, area_edges=(10, 300))
    evaluation = evaluate(read_run(config, str(tmp_path / 'results')), 'segm')
    pear = summary(evaluation, 0)
    # The best of each picture only: two of three objects, no mistake.
    assert pear['mAP_50'] == pytest.approx(67 / 101)
    assert pear['mAP_s'] == pear['mAP_m'] == -1 and pear['mAP_l'] > 0


@pytest.mark.parametrize(
    'breakage, message',
    [
        (
            lambda folder: [(folder / f'results.{k}.json').unlink() for k in KINDS],
            'test_evaluator.outfile_prefix=',
        ),
        (lambda folder: (folder / 'truth.json').unlink(), "truth.json' does not exist"),
        (
            lambda folder: (folder / 'results.segm.json').write_text(
                '[{"image_id": 44, "category_id": 7, "score": 1}]'
            ),
            'image_id=44',
        ),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, breakage, message):
    config = write_run(tmp_path)
    breakage(tmp_path)
    with pytest.raises(ExperimentError) as error:
        read_run(config, str(tmp_path / 'results'))
    assert message in str(error.value) and '\n' not in str(error.value)


KINDS = ('bbox', 'segm')


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(test_evaluator=dict(type='CocoPanopticMetric')), 'CocoPanopticMetric'),
        (
            dict(test_dataloader=dict(dataset=dict(metainfo=dict(classes=('nut',))))),
            "metainfo.classes=['nut']",
        ),
    ],
)
def test_configs_that_do_not_fit(tmp_path, change, message):
    path = write_run(tmp_path)
    config = Config.fromfile(path)
    config.merge_from_dict(change)
    config.dump(path)
    with pytest.raises(ExperimentError, match=re.escape(message)):
        read_run(path, str(tmp_path / 'results'))


@pytest.mark.slow
def test_command_writes_the_page(tmp_path, repository):
    config = write_run(tmp_path)
    (tmp_path / '20260102_030405').mkdir()
    metrics = tmp_path / '20260102_030405' / '20260102_030405.json'
    metrics.write_text('{"time": 0.5}')
    command = [sys.executable, repository / 'tools' / 'report.py', config]
    command += [tmp_path / 'results', tmp_path / 'new' / 'report.html']
    done = subprocess.run(
        list(map(str, command)), cwd=repository, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert '4.0 pictures a second' in (tmp_path / 'new' / 'report.html').read_text()


PROBE = """<script>
const overflow = document.documentElement.scrollWidth - innerWidth;
const broken = [...document.images].filter(i => !i.naturalWidth).length;
const flat = [...document.querySelectorAll('svg, section, table, img')]
  .filter(e => e.getBoundingClientRect().height < 10).length;
document.title = JSON.stringify({overflow, broken, flat, images: document.images.length,
  fonts: getComputedStyle(document.body).fontFamily});
</script>"""


def chromium(folder: Path, *flags: str) -> str:
    program = shutil.which('chromium') or shutil.which('chromium-browser')
    if program is None:
        pytest.skip('chromium is not installed')
    command = [program, '--headless', '--no-sandbox', '--disable-gpu']
    command += ['--disable-quic', '--no-first-run', '--disable-background-networking']
    command += ['--disable-component-update', '--disable-sync', '--hide-scrollbars']
    command += [f'--user-data-dir={folder / "browser"}', *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize('width', [1200, 500])
def test_a_browser_shows_it(run, tmp_path, width):
    """Pictures load, nothing is flat, and nothing sticks out at the side."""
    page = tmp_path / 'report.html'
    page.write_text(render_page(run).replace('</body>', PROBE + '</body>'))
    dom = chromium(tmp_path, f'--window-size={width},900', '--dump-dom', page.as_uri())
    seen = json.loads(re.search(r'<title>(\{.*?\})</title>', dom)[1])
    assert seen['images'] == 2 and seen['broken'] == 0
    assert seen['flat'] == 0 and seen['overflow'] <= 0
    shot = tmp_path / 'shot.png'
    chromium(
        tmp_path, f'--window-size={width},900', f'--screenshot={shot}', page.as_uri()
    )
    pixels = cv2.imread(str(shot))
    assert pixels.shape == (900, width, 3)
    # Most is paper, and there is ink.
    assert 0.6 < np.mean(pixels.min(2) > 240) < 0.99
    assert np.mean(pixels.max(2) < 80) > 0.001
