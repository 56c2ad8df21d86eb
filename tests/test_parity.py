"""The network computes what the reference computes, and the check would notice if not.

The goldens in `data/parity` are thinned; where the whole ones are at hand
(`../shared/parity`), they are compared too.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from mmdet_centermask.config_path import find_config
from mmdet_centermask.models import box_candidates, roi_extractor
from mmdet_centermask.parity import (
    answer,
    checking,
    compare,
    golden,
    load_golden,
    network,
    panoptic,
    parity_picture,
    stand_in,
    training,
)
from mmdet_centermask.parity.compare import Limit, Row, mask_ious, match
from mmdet_centermask.parity.picture import CASES

REPOSITORY = Path(__file__).resolve().parents[1]
GOLDENS = REPOSITORY / 'tests' / 'data' / 'parity'
SHARED = REPOSITORY.parent / 'shared' / 'parity'
NAMES = sorted(path.stem for path in GOLDENS.glob('*.npz'))
WHOLE = sorted(path.stem for path in SHARED.glob('golden/*.npz'))
LITE = 'centermask_lite_V_19_slim_eSE_FPN_ms_4x'

# The reference's MobileNetV2 shows a map that its pyramid does not read; what the
# semantic loss was taken on, the golden does not say.
NOT_COMPARED = {
    'centermask_lite_Mv2_FPN_ms_4x': {'a/backbone/res2', 'b/backbone/res2'},
    'panoptic_centermask_V_39_eSE_FPN_ms_3x': {'train/loss_sem_seg'},
}


def config_of(official: str) -> str:
    """Our name for an official config."""
    family, backbone, schedule = re.fullmatch(
        r'((?:panoptic_)?centermask(?:_lite)?)_(.+)_FPN_ms_(\dx)', official
    ).groups()
    backbone = backbone.lower().replace('_ese', '').replace('_', '-')
    backbone = re.sub(r'^([vrx])-', r'\1', backbone)
    return f'{family.replace("_", "-")}_{backbone}_fpn_ms-{schedule}_coco'


@functools.cache
def manifest_of(official: str) -> dict:
    path = GOLDENS / f'{official}.json'
    if not path.exists():
        path = SHARED / 'manifests' / path.name
    return json.loads(path.read_text())


@functools.cache
def answers_of(official: str) -> dict:
    path = GOLDENS / f'{official}.npz'
    if not path.exists():
        path = SHARED / 'golden' / path.name
    config = find_config(config_of(official))
    torch.set_num_threads(2)
    return answer(config, load_golden(path), manifest_of(official), parity_picture())


def failures(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.verdict == 'FAIL']


def named(rows: list[Row], name: str) -> Row:
    (row,) = [row for row in rows if row.quantity == name]
    return row


@pytest.mark.parametrize(
    ('official', 'ours'),
    [
        ('centermask_V_39_eSE_FPN_ms_3x', 'centermask_v39_fpn_ms-3x_coco'),
        ('centermask_V_99_eSE_dcn_FPN_ms_3x', 'centermask_v99-dcn_fpn_ms-3x_coco'),
        ('centermask_X_101_FPN_ms_3x', 'centermask_x101_fpn_ms-3x_coco'),
        ('centermask_lite_Mv2_FPN_ms_4x', 'centermask-lite_mv2_fpn_ms-4x_coco'),
        (
            'centermask_lite_V_19_slim_dw_eSE_FPN_ms_4x',
            'centermask-lite_v19-slim-dw_fpn_ms-4x_coco',
        ),
        (
            'panoptic_centermask_V_57_eSE_FPN_ms_3x',
            'panoptic-centermask_v57_fpn_ms-3x_coco',
        ),
    ],
)
def test_our_name_of_an_official_config(official, ours):
    assert config_of(official) == ours


class TestGoldens:
    @pytest.mark.parametrize('name', NAMES)
    def test_every_limit_holds(self, name):
        rows = compare(load_golden(GOLDENS / f'{name}.npz'), answers_of(name))
        assert failures(rows) == []
        assert len(rows) >= 82
        left_out = {row.quantity for row in rows if row.verdict == 'not compared'}
        assert left_out == NOT_COMPARED.get(name, set())

    @pytest.mark.parametrize('name', NAMES)
    @pytest.mark.parametrize('loss', ['loss_fcos_loc', 'loss_mask', 'loss_maskiou'])
    def test_the_references_rule_is_all_that_differs(self, name, loss):
        """docs/fidelity.md: stock losses differ by a few percent at most, and the
        reference's rule on the same predictions gives the golden's number."""
        golden = load_golden(GOLDENS / f'{name}.npz')
        rows = compare(golden, answers_of(name))
        assert named(rows, f'train/{loss}').relative < 0.03
        assert named(rows, f"train/{loss}, reference's rule").relative < 2e-5

    @pytest.mark.skipif(not WHOLE, reason='needs ../shared/parity')
    @pytest.mark.parametrize('name', WHOLE)
    def test_whole_golden(self, name):
        whole = load_golden(SHARED / 'golden' / f'{name}.npz')
        rows = compare(whole, answers_of(name))
        assert failures(rows) == []
        if name in NAMES:
            thin = compare(load_golden(GOLDENS / f'{name}.npz'), answers_of(name))
            assert [row.quantity for row in thin] == [row.quantity for row in rows]
            for row, whole_row in zip(thin, rows, strict=True):
                assert (row.difference or 0) <= (whole_row.difference or 0)

    def test_goldens_stay_small(self):
        assert sum(path.stat().st_size for path in GOLDENS.iterdir()) < 1.5e6


@pytest.fixture(scope='module')
def lite():
    """The lite network with its stand-in weights."""
    torch.set_num_threads(2)
    config = find_config(config_of(LITE))
    return network.stand_in_network(config, manifest_of(LITE))


class TestTheCheckNotices:
    """Rules broken on purpose, on the lite network and the padded picture."""

    @pytest.fixture
    def failed(self, lite):
        """What fails now, without the case's prefix."""
        golden = load_golden(GOLDENS / f'{LITE}.npz')
        golden = {n: a for n, a in golden.items() if n.startswith('b/')}

        def run() -> set[str]:
            answers = network.predict_answers(lite, parity_picture()[CASES['b']], 'b')
            rows = failures(compare(golden, answers))
            return {row.quantity.removeprefix('b/') for row in rows}

        return run

    def test_nothing_is_broken(self, failed):
        assert failed() == set()

    def test_boxes_clipped_too_early(self, failed, lite, monkeypatch):
        monkeypatch.setattr(lite.bbox_head.bbox_coder, 'clip_border', True)
        assert {'boxes', 'mask_probs'} <= failed()

    def test_score_without_the_root(self, failed, monkeypatch):
        select = box_candidates.select_candidates

        def squared(*args):
            scores, *others = select(*args)
            return scores**2, *others

        monkeypatch.setattr(box_candidates, 'select_candidates', squared)
        assert {'scores', 'mask_scores', 'final_scores'} <= failed()

    def test_coarser_level_of_the_pyramid(self, lite, monkeypatch):
        """In training: all boxes of the predictions happen to read P3."""
        levels = roi_extractor.adaptive_roi_levels

        def coarser(roi_areas, image_areas, *limits):
            return levels(roi_areas * 2, image_areas, *limits)

        golden = load_golden(GOLDENS / f'{LITE}.npz')
        golden = {n: a for n, a in golden.items() if n.startswith('train/')}
        monkeypatch.setattr(roi_extractor, 'adaptive_roi_levels', coarser)
        answers = training.training_answers(lite, parity_picture(), golden)
        rows = failures(compare(golden, answers))
        assert "train/loss_mask, reference's rule" in {row.quantity for row in rows}

    def test_roi_align_with_a_fixed_grid(self, failed, lite, monkeypatch):
        for layer in lite.roi_head.mask_roi_extractor.roi_layers:
            monkeypatch.setattr(layer, 'sampling_ratio', 2)
        assert 'mask_probs' in failed()

    def test_another_nms(self, failed, lite, monkeypatch):
        monkeypatch.setitem(lite.test_cfg.bbox.nms, 'iou_threshold', 0.5)
        assert failed()

    def test_gate_left_out(self, failed, lite, monkeypatch):
        gate = lite.backbone.stages[3].blocks[0].ese
        monkeypatch.setattr(gate, 'forward', lambda x: x)
        assert {'backbone/stage5', 'fpn/p5', 'cls/p5'} <= failed()


class TestPicture:
    def test_is_made_from_scikit_image(self):
        picture = parity_picture()
        assert picture.shape == (288, 320, 3)
        assert picture.dtype == np.uint8

    @pytest.mark.skipif(not SHARED.exists(), reason='needs ../shared/parity')
    def test_is_the_one_that_was_handed_over(self):
        assert np.array_equal(parity_picture(), parity_picture(SHARED / 'image.npy'))

    def test_another_one_is_refused(self, tmp_path):
        np.save(tmp_path / 'other.npy', parity_picture()[::-1])
        with pytest.raises(ValueError, match='other.npy: another picture'):
            parity_picture(tmp_path / 'other.npy')


class TestStandIn:
    @pytest.mark.skipif(not SHARED.exists(), reason='needs ../shared/parity')
    def test_is_the_rule_that_was_handed_over(self):
        spec = importlib.util.spec_from_file_location(
            'official_weights', SHARED / 'official_weights.py'
        )
        theirs = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(theirs)
        shapes = {'pixel_mean': (3, 1, 1), 'pixel_std': (3, 1, 1)}
        for path in SHARED.glob('manifests/*.json'):
            shapes |= json.loads(path.read_text())
        seen = set()
        for name, shape in shapes.items():
            # Of each kind of name one, and none that takes long.
            kind = re.sub(r'\d+', '#', name)
            if kind in seen or np.prod(shape) > 3e5:
                continue
            seen.add(kind)
            mine, other = (
                stand_in.stand_in(name, tuple(shape)),
                theirs.fill(name, shape),
            )
            assert mine.dtype == other.dtype
            assert np.array_equal(mine, other), name
        assert len(seen) > 80

    def test_says_what_it_always_said(self):
        bias = stand_in.stand_in('proposal_generator.fcos_head.cls_logits.bias', (80,))
        assert bias.dtype == np.float32
        assert -5.7 < bias.min() < bias.max() < -4.9
        variance = stand_in.stand_in('stem.stem_1/norm.running_var', (64,))
        assert 0.5 <= variance.min() < variance.max() < 1.5
        assert stand_in.stand_in('x.num_batches_tracked', ()) == 0
        again = stand_in.stand_in('stem.stem_1/norm.running_var', (64,))
        assert np.array_equal(variance, again)


class TestThinGolden:
    def test_keeps_every_nth_number(self):
        whole = {'a/fpn/p3': np.arange(9000, dtype=np.float32).reshape(9, 20, 50)}
        thin = golden.thin(whole)
        (name,) = thin
        assert golden.split_name(name) == ('a/fpn/p3', 11)  # 9 and 10 divide 9000
        rows = compare(thin, whole)
        assert named(rows, 'a/fpn/p3').difference == 0

    def test_keeps_small_and_packed_arrays(self):
        whole = {
            'a/boxes': np.zeros((50, 4), np.float32),
            'a/final_masks_packed': np.zeros(50000, np.uint8),
        }
        assert golden.thin(whole).keys() == whole.keys()

    def test_refuses_a_foreign_file(self, tmp_path):
        np.savez(tmp_path / 'x.npz', weight=np.zeros(3))
        with pytest.raises(ValueError, match='not a golden'):
            load_golden(tmp_path / 'x.npz')


class TestCompare:
    def test_detections_in_another_order(self):
        boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 11], [5, 5, 9, 9]], np.float32)
        labels = np.array([1, 1, 2])
        swapped = match(boxes, labels, boxes[[1, 0, 2]], labels)
        assert swapped.tolist() == [1, 0, 2]

    def test_no_box_is_matched_twice(self):
        boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10.1]], np.float32)
        ours = np.array([[0, 0, 10, 10], [50, 50, 60, 60]], np.float32)
        assert match(boxes, np.zeros(2), ours, np.zeros(2)).tolist() == [0, 1]

    def test_a_wrong_label_keeps_its_row(self):
        boxes = np.zeros((2, 4), np.float32)
        assert match(boxes, np.array([1, 2]), boxes, np.array([1, 3])).tolist() == [
            0,
            1,
        ]

    @pytest.mark.parametrize(('gap', 'verdict'), [(0.0, 'ok'), (0.01, 'FAIL')])
    def test_only_ties_may_change_places(self, gap, verdict):
        boxes = np.array([[0, 0, 10, 10], [5, 5, 9, 9]], np.float32)
        wanted = {
            'a/boxes': boxes,
            'a/scores': np.array([0.5 + gap, 0.5], np.float32),
            'a/labels': np.array([1, 1]),
        }
        ours = {name: array[::-1] for name, array in wanted.items()}
        rows = compare(wanted, ours)
        assert named(rows, 'a/order').verdict == verdict
        assert named(rows, 'a/boxes').verdict == 'ok'

    def test_one_detection_too_few(self):
        wanted = {
            'a/boxes': np.zeros((2, 4), np.float32),
            'a/scores': np.zeros(2, np.float32),
            'a/labels': np.zeros(2, np.int64),
        }
        rows = compare(wanted, {name: array[:1] for name, array in wanted.items()})
        assert {row.quantity for row in failures(rows)} == {'a/number', *wanted}

    def test_what_must_be_there(self):
        wanted = {name: np.ones(3) for name in ('a/fpn/p3', 'a/backbone/res2', 'a/new')}
        verdicts = {row.quantity: row.verdict for row in compare(wanted, {})}
        assert verdicts == {
            'a/fpn/p3': 'FAIL',
            'a/backbone/res2': 'not compared',
            'a/new': 'not compared',
        }

    def test_nan_fails(self):
        rows = compare({'a/fpn/p3': np.ones(3)}, {'a/fpn/p3': np.full(3, np.nan)})
        assert failures(rows)

    def test_limit_is_relative_to_the_largest(self):
        wanted = {'a/fpn/p3': np.array([0.0, 50.0])}
        assert not failures(compare(wanted, {'a/fpn/p3': np.array([0.004, 50.0])}))
        assert failures(compare(wanted, {'a/fpn/p3': np.array([0.006, 50.0])}))

    def test_mask_ious(self):
        masks = np.zeros((3, 2, 2), bool)
        masks[0, 0] = masks[1, 0] = True
        others = masks.copy()
        others[1] = True
        assert mask_ious(masks, others).tolist() == [1.0, 0.5, 1.0]

    def test_row_without_limit_is_only_reported(self):
        assert Row('x', 5.0, None, Limit('', None)).verdict == 'reported'


class TestReferenceRules:
    """By hand. What they give on the goldens is checked above."""

    def test_smoothed_giou(self):
        wanted = torch.tensor([[2.0, 2.0, 2.0, 2.0]])
        assert training.smoothed_giou_loss(wanted, wanted) == 0
        # 2 x 2 in 4 x 4: (4 + 1) / (16 + 1), and the hull is no larger than the union.
        loss = training.smoothed_giou_loss(wanted / 2, wanted)
        assert loss == pytest.approx(12 / 17)

    def test_centerness_weighs(self):
        wanted = torch.tensor([[2.0, 2.0, 2.0, 2.0], [1.0, 1.0, 4.0, 4.0]])
        loss = training.smoothed_giou_loss(
            wanted * torch.tensor([[0.5], [1.0]]), wanted
        )
        assert loss == pytest.approx(12 / 17 / 1.25)

    def test_polygon_is_drawn_in_the_frame_of_the_roi(self):
        square = [[[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]]
        rois = torch.tensor([[10.0, 10.0, 30.0, 30.0], [10.0, 10.0, 50.0, 30.0]])
        full, half = training.polygon_targets(square, torch.tensor([0, 0]), rois, 28)
        assert full.all()
        assert half[:, :14].all()
        assert not half[:, 14:].any()

    def test_covered_share(self):
        square = [[[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]]
        rois = torch.tensor([[10.0, 10.0, 30.0, 30.0], [10.0, 10.0, 20.0, 30.0]])
        shares = training.covered_shares(square, torch.tensor([0, 0]), rois)
        assert shares.tolist() == [1.0, 0.5]

    def test_mask_iou_loss(self):
        masks = torch.zeros(1, 4, 4, dtype=torch.bool)
        masks[0, :2] = True
        targets = torch.ones(1, 4, 4)
        # 8 of 16 pixels, and of an object twice as large: 8 / 32.
        loss = training.mask_iou_loss(
            torch.tensor([0.75]), masks, targets, torch.tensor([0.5])
        )
        assert loss == pytest.approx(0.5 * 0.5**2)


def test_segments_are_numbered_things_first():
    # Two instances of class 3, stuff class 1 (label 81), void 133.
    fused = np.array([[3 + 1000, 3 + 2000], [81, 133]])
    segments, table = panoptic.number_segments(fused, things=80, stuff=53)
    assert segments.tolist() == [[1, 2], [3, 0]]
    assert table.tolist() == [[1, 1, 3], [2, 1, 3], [3, 0, 2]]


class TestTool:
    @pytest.fixture
    def run(self, monkeypatch, capsys):
        """The command, with the network's answers at hand."""
        monkeypatch.setattr(checking, 'answer', lambda *_: answers_of(LITE))
        tool = runpy.run_path(str(REPOSITORY / 'tools' / 'check_parity.py'))

        def run(golden: Path, *options: str) -> tuple[int, str]:
            manifest = GOLDENS / f'{LITE}.json'
            code = tool['main']([config_of(LITE), str(golden), str(manifest), *options])
            captured = capsys.readouterr()
            return code, captured.out + captured.err

        return run

    def test_table(self, run):
        code, printed = run(GOLDENS / f'{LITE}.npz')
        assert code == 0
        assert printed.splitlines()[-1] == '82 rows, 0 beyond their limit'
        assert re.search(r'^a/boxes +\d\.\d\de-\d\d .* 0.01 +ok$', printed, re.M)

    def test_broken_limit(self, run, tmp_path):
        golden = load_golden(GOLDENS / f'{LITE}.npz')
        golden['b/scores'] = golden['b/scores'] + np.float32(2e-4)
        np.savez(tmp_path / 'broken.npz', **golden)
        code, printed = run(tmp_path / 'broken.npz')
        assert code == 1
        assert re.search(r'^b/scores +.* FAIL$', printed, re.M)
        assert printed.splitlines()[-1] == '82 rows, 1 beyond their limit'

    def test_missing_file(self, run, tmp_path):
        code, printed = run(tmp_path / 'none.npz')
        assert code == 2
        assert printed.startswith('error: ')

    def test_a_manifest_that_does_not_fit(self, tmp_path):
        manifest = dict(manifest_of(LITE))
        manifest.popitem()
        with pytest.raises(ValueError, match='missing'):
            network.stand_in_network(find_config(config_of(LITE)), manifest)
