"""Panoptic-CenterMask: fusion by hand, the semantic loss, the reference's numbers, and
COCO-panoptic files from training to PQ."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData, PixelData
from PIL import Image
from tiny_centermask import CONFIGS, batch_of, picture
from torch import Tensor, nn

from mmdet_centermask.convert import draft

QUICKSTART = 'panoptic-centermask_v19-slim-dw_fpn_quickstart'
TOOL = CONFIGS.parent / 'tools' / 'make_quickstart_data.py'
PARITY = CONFIGS.parent.parent / 'shared' / 'parity'
OFFICIAL = 'panoptic_centermask_V_39_eSE_FPN_ms_3x'
THINGS, STUFF = 5, 2
VOID = THINGS + STUFF


def quickstart(**options) -> ConfigDict:
    """The model of the panoptic quickstart config, with ``a__b=...`` for ``a.b``."""
    config = Config.fromfile(CONFIGS / 'quickstart' / f'{QUICKSTART}.py')
    options = {f'model.{key.replace("__", ".")}': v for key, v in options.items()}
    config.merge_from_dict(options)
    return config.model


@pytest.fixture(scope='module')
def model() -> nn.Module:
    init_default_scope('mmdet')
    torch.manual_seed(0)
    return MODELS.build(quickstart()).eval()


def labelled_picture(height=64, width=96, boxes=((8, 8, 72, 56),)):
    pixels, sample = picture(height, width, boxes)
    labels = torch.full((1, height, width), THINGS)
    labels[:, : height // 4] = 255
    sample.gt_sem_seg = PixelData(sem_seg=labels)
    return pixels, sample


# Fusion, on a map of 10 x 40 pixels.


def strip(first: int, last: int) -> Tensor:
    """A mask of whole columns."""
    mask = torch.zeros(10, 40, dtype=torch.bool)
    mask[:, first:last] = True
    return mask


def instances(*rows: tuple[float, float, int, Tensor]) -> InstanceData:
    """From (score, mask score, label, mask) of each."""
    scores, mask_scores, labels, masks = zip(*rows, strict=True)
    return InstanceData(
        bboxes=torch.zeros(len(rows), 4),
        scores=torch.tensor(scores),
        mask_scores=torch.tensor(mask_scores),
        labels=torch.tensor(labels),
        masks=torch.stack(masks),
    )


def semantic(**areas: tuple[int, int]) -> Tensor:
    """Logits that are sure: ``scene``, ``ground`` or ``thing`` in columns."""
    logits = torch.zeros(STUFF + 1, 10, 40)
    for name, (first, last) in areas.items():
        logits[('scene', 'ground', 'thing').index(name), :, first:last] = 9.0
    return logits


def fused(model, found: InstanceData, logits: Tensor) -> list[int]:
    """The panoptic map of one picture, of which all rows are alike: its first row."""
    (segments,) = model.fuse([found], [logits])
    assert segments.sem_seg.shape == (1, 10, 40)
    assert (segments.sem_seg[0] == segments.sem_seg[0, 0]).all()
    return segments.sem_seg[0, 0].tolist()


def test_stuff_fills_what_sure_instances_leave(model):
    found = instances((0.9, 0.1, 3, strip(0, 8)), (0.49, 0.9, 1, strip(20, 30)))
    row = fused(model, found, semantic(scene=(0, 24), thing=(24, 26), ground=(26, 40)))
    # The second is below 0.5; 'thing' without an instance is nothing; 140 pixels of
    # ground and 160 of scene are enough.
    assert row == [1003] * 8 + [THINGS] * 16 + [VOID] * 2 + [THINGS + 1] * 14


def test_instance_counts_from_the_threshold_on(model):
    found = instances((0.5, 0.5, 2, strip(0, 8)))
    assert fused(model, found, semantic(scene=(0, 40)))[0] == 1002


def test_box_scores_rank_and_half_an_overlap_is_allowed(model):
    found = instances(
        (0.6, 0.9, 0, strip(0, 10)),  # half of it is taken, so half of it is laid
        (0.9, 0.2, 1, strip(5, 15)),  # first, whatever its mask score
        (0.8, 0.8, 2, strip(8, 16)),  # 7 of 8 columns taken: dropped
    )
    row = fused(model, found, semantic(scene=(0, 40)))
    assert row == [2000] * 5 + [1001] * 10 + [THINGS] * 25


def test_small_stuff_is_void(model):
    limit = model.test_cfg.panoptic.stuff_area_limit
    assert 120 < limit <= 130
    found = instances((0.9, 0.9, 0, strip(0, 14)))
    row = fused(model, found, semantic(ground=(0, 26), scene=(26, 40)))
    # Only 12 columns of the ground are in sight.
    assert row == [1000] * 14 + [VOID] * 12 + [THINGS] * 14


def test_no_instances_at_all(model):
    nothing = instances((0.9, 0.9, 0, strip(0, 1)))[:0]
    assert fused(model, nothing, semantic(scene=(0, 40))) == [THINGS] * 40


# The detector.


def test_semantic_loss_is_the_mean_over_labelled_pixels_at_full_size(model):
    inputs, samples = batch_of(
        model, labelled_picture(), labelled_picture(52, 80), training=True
    )
    with torch.no_grad():
        x = model.extract_feat(inputs)
        loss = model.semantic_head.loss(x, samples)['loss_seg']
        logits = model.semantic_head(x)['seg_preds']
        logits = F.interpolate(logits, scale_factor=4, mode='bilinear')
    truth = torch.stack([sample.gt_sem_seg.sem_seg[0] for sample in samples])
    # Padding and void do not count; label 5 is the first stuff class.
    assert set(truth.unique().tolist()) == {THINGS, 255}
    assert (truth[1, 52:] == 255).all() and (truth[1, :, 80:] == 255).all()
    own = -logits.log_softmax(1)[:, 0][truth == THINGS]
    torch.testing.assert_close(loss, 0.5 * own.mean(), rtol=1e-4, atol=1e-5)


def test_all_things_are_one_class_to_the_semantic_head(model):
    labels = torch.tensor([[0, THINGS - 1, THINGS, THINGS + 1, 255]])
    assert model.semantic_head._set_things_to_void(labels).tolist() == [
        [STUFF, STUFF, 0, 1, 255]
    ]


def test_instances_are_those_of_centermask_on_p3_to_p7(model):
    inputs, samples = batch_of(model, labelled_picture())
    talk = deepcopy(model)
    nn.init.zeros_(talk.bbox_head.conv_cls.bias)
    with torch.no_grad():
        x = talk.extract_feat(inputs)
        assert [inputs.shape[-1] // m.shape[-1] for m in x[:5]] == [4, 8, 16, 32, 48]
        (plain,) = talk.predict_instances(x[1:], deepcopy(samples), rescale=True)
        (result,) = talk.predict(inputs, samples)
    for name in ('bboxes', 'scores', 'labels', 'masks', 'mask_scores'):
        assert torch.equal(result.pred_instances[name], plain[name])
    assert len(plain) > 0


@pytest.mark.parametrize('rescale, size', [(True, (104, 160)), (False, (52, 80))])
def test_map_has_the_size_of_the_picture(model, rescale, size):
    """The small picture is padded beside the large one; its map must not be."""
    small = picture(52, 80, scale_factor=(0.5, 0.5))
    with torch.no_grad():
        results = model.predict(
            *batch_of(model, picture(64, 96), small), rescale=rescale
        )
    assert results[1].pred_panoptic_seg.sem_seg.shape == (1, *size)


def test_raw_outputs_end_with_the_semantic_logits(model):
    with torch.no_grad():
        outputs = model.forward(torch.rand(1, 3, 64, 64), mode='tensor')
    assert outputs[-1].shape == (1, STUFF + 1, 16, 16)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(semantic_head__num_stuff_classes=3), 'num_stuff_classes=3 but'),
        (dict(semantic_head__num_things_classes=4), 'num_things_classes=4 but'),
        (dict(panoptic_fusion_head__num_things_classes=4), 'bbox_head.num_classes=5'),
    ],
)
def test_counts_that_differ_are_named(options, message):
    with torch.device('meta'), pytest.raises(ValueError, match=message):
        MODELS.build(quickstart(**options))


LEVELS = 'strides [4, 8, 16, 32, 64, 128]'
VOVNET_P3 = dict(
    backbone__out_indices=(1, 2, 3), neck__in_channels=[256, 384, 512], neck__num_outs=5
)


@pytest.mark.parametrize(
    'options, given',
    [
        (dict(neck__num_outs=5), 'neck.num_outs=5, the first of stride 4'),
        (VOVNET_P3, 'neck.num_outs=5, the first of stride 8'),
        (VOVNET_P3 | dict(neck__num_outs=6), 'num_outs=6, the first of stride 8'),
        (dict(neck__start_level=1), 'num_outs=6, the first of stride 8'),
    ],
)
def test_neck_without_p2_is_refused(options, given):
    with torch.device('meta'), pytest.raises(ValueError) as error:
        MODELS.build(quickstart(**options))
    assert given in str(error.value) and LEVELS in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', ['r50', 'x101'])
def test_neck_of_a_resnet_without_p2_is_refused(name):
    folder = CONFIGS / 'panoptic_centermask'
    path = folder / f'panoptic-centermask_{name}_fpn_ms-3x_coco.py'
    model = Config.fromfile(path).model
    model.backbone.out_indices = (1, 2, 3)
    model.neck.in_channels = model.neck.in_channels[1:]
    with torch.device('meta'), pytest.raises(ValueError, match='first of stride 8'):
        MODELS.build(model)


@pytest.mark.parametrize('mask_format', ['rle', 'roi'])
def test_fusion_needs_bitmaps(mask_format):
    message = f"mask_format='{mask_format}', but the fusion"
    with torch.device('meta'), pytest.raises(ValueError, match=message):
        MODELS.build(quickstart(test_cfg__rcnn__mask_format=mask_format))


# The reference's numbers.


def test_semantic_logits_and_panoptic_map_are_the_references():
    """Weights by rule (see the parity folder); two pictures, one of them padded."""
    golden_path = PARITY / 'golden' / f'{OFFICIAL}.npz'
    if not golden_path.is_file():
        pytest.skip(f'{golden_path} is not there')
    golden = np.load(golden_path)
    net = official_network()
    whole = np.load(PARITY / 'image.npy')
    for case, pixels in dict(a=whole, b=whole[17:267, 11:312]).items():
        height, width = pixels.shape[:2]
        own = picture(height, width, ())[1]
        colours = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
        inputs, samples = batch_of(net, (colours, own))
        with torch.no_grad():
            x = net.extract_feat(inputs)
            padded = net.semantic_head.predict(x, [samples[0].metainfo])[0]
            (result,) = net.predict(inputs, samples)
        # The reference has 'thing' first.
        logits = padded.roll(1, dims=0)
        difference = np.abs(logits[::4, ::8, ::8] - golden[f'{case}/sem_logits']).max()
        assert difference < 1e-4 * np.abs(golden[f'{case}/sem_logits']).max()
        classes = logits[:, :height, :width].argmax(0)
        assert np.mean(classes.numpy() != golden[f'{case}/sem_argmax']) < 1e-4
        expected = panoptic_map(golden, case)
        found = result.pred_panoptic_seg.sem_seg[0].numpy()
        assert np.mean(found != expected) < 1e-4


def official_network() -> nn.Module:
    sys.path.insert(0, str(PARITY))
    try:
        from official_weights import fill
    finally:
        sys.path.remove(str(PARITY))
    manifest = json.loads((PARITY / 'manifests' / f'{OFFICIAL}.json').read_text())
    released = {n: torch.from_numpy(fill(n, shape)) for n, shape in manifest.items()}
    init_default_scope('mmdet')
    folder = CONFIGS / 'panoptic_centermask'
    config = Config.fromfile(folder / 'panoptic-centermask_v39_fpn_ms-3x_coco.py')
    net = MODELS.build(config.model).eval()
    net.load_state_dict(draft.start(released).state, strict=False)
    return net


def panoptic_map(golden, case: str) -> np.ndarray:
    """The reference's segments in MMDetection's labels; 133 is void."""
    ids = golden[f'{case}/panoptic']
    labels = np.full(ids.shape, 133)
    for segment in json.loads(str(golden[f'{case}/panoptic_info'])):
        assert not segment['isthing']  # no instance is sure enough with these weights
        labels[ids == segment['id']] = 80 + segment['category_id'] - 1
    return labels


# Data.


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    pytest.importorskip('skimage')
    out = tmp_path_factory.mktemp('panoptic') / 'set'
    sizes = ('--train', '4', '--val', '3', '--size', '96')
    command = [sys.executable, TOOL, out, '--panoptic', *sizes]
    subprocess.run(command, check=True, capture_output=True)
    return out


@pytest.mark.parametrize('split', ['train', 'val'])
def test_segments_cover_each_picture_once(folder, split):
    coco = json.loads((folder / 'annotations' / f'panoptic_{split}.json').read_text())
    masks = json.loads((folder / 'annotations' / f'{split}.json').read_text())
    isthing = {c['id']: c['isthing'] for c in coco['categories']}
    assert sum(isthing.values()) == THINGS and len(isthing) == THINGS + STUFF
    for image, entry in zip(coco['images'], coco['annotations'], strict=True):
        png = folder / 'annotations' / f'panoptic_{split}' / entry['file_name']
        assert entry['image_id'] == image['id']
        assert png.stem == image['file_name'][:-4]
        colours = np.asarray(Image.open(png)).astype(int)
        assert colours.shape == (image['height'], image['width'], 3)
        ids = colours @ [1, 256, 65536]
        infos = entry['segments_info']
        assert sorted(np.unique(ids)) == [info['id'] for info in infos]
        for info in infos:
            rows, columns = np.nonzero(ids == info['id'])
            x, y, width, height = info['bbox']
            assert info['area'] == len(rows)
            assert (x, y) == (columns.min(), rows.min())
            assert (width, height) == (np.ptp(columns) + 1, np.ptp(rows) + 1)
        # The things are the instances of the other file.
        things = [i['area'] for i in infos if isthing[i['category_id']]]
        own = [a for a in masks['annotations'] if a['image_id'] == image['id']]
        assert things == [a['area'] for a in own]
        assert sum(not isthing[i['category_id']] for i in infos) == 1


def test_without_the_flag_nothing_is_added(folder, tmp_path):
    sizes = ('--train', '4', '--val', '3', '--size', '96')
    command = [sys.executable, TOOL, tmp_path / 'plain', *sizes]
    subprocess.run(command, check=True, capture_output=True)
    plain = {p.relative_to(tmp_path / 'plain') for p in (tmp_path / 'plain').rglob('*')}
    both = {p.relative_to(folder) for p in folder.rglob('*')}
    assert {str(p) for p in both - plain if len(p.parts) == 2} == {
        f'annotations/panoptic_{split}{end}'
        for split in ('train', 'val')
        for end in ('', '.json')
    }
    for path in sorted(plain):
        if path.suffix in ('.jpg', '.json') and path.name != 'quickstart.json':
            assert (folder / path).read_bytes() == (
                tmp_path / 'plain' / path
            ).read_bytes()


@pytest.mark.slow
def test_trains_and_tests_on_coco_panoptic_files(folder, tmp_path):
    """Through the command: losses, a checkpoint, PQ."""
    pytest.importorskip('panopticapi', reason='MMDetection reads the files with it')
    notes = folder / 'annotations'
    options = [
        f'{loader}.{key}'
        for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader')
        for key in (f'dataset.data_root={folder}/', 'num_workers=0')
    ]
    options += [
        f'val_evaluator.ann_file={notes}/panoptic_val.json',
        f'val_evaluator.seg_prefix={notes}/panoptic_val/',
        'train_cfg.max_iters=2',
        'train_cfg.val_interval=2',
        'train_dataloader.batch_size=2',
        'default_hooks.logger.interval=1',
    ]
    script = CONFIGS.parent / 'tools' / 'train.py'
    command = [sys.executable, script, f'{QUICKSTART}.py', '--work-dir', tmp_path]
    done = subprocess.run(
        [*map(str, command), '--cfg-options', *options],
        capture_output=True,
        text=True,
        cwd=CONFIGS.parent,
        env={**os.environ, 'PYTHONPATH': str(CONFIGS.parent)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / 'iter_2.pth').is_file()
    (log,) = tmp_path.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {'loss_cls', 'loss_mask', 'loss_mask_iou', 'loss_seg'} <= lines[0].keys()
    assert 0 <= lines[-1]['coco_panoptic/PQ'] <= 100
