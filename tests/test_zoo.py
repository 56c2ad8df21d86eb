"""The zoo holds together: metafiles, official parameter names, a step of training."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from modelindex.load_model_index import load
from tiny_centermask import CONFIGS, Picture, batch_of, picture, total
from torch import Tensor, nn
from zoo_complexity import flops_of, shapes_of

from mmdet_centermask.benchmark.complexity import parameters_of
from mmdet_centermask.benchmark.pictures import network_shape
from mmdet_centermask.convert import draft

ROOT = CONFIGS.parent
MANIFESTS = ROOT.parent / 'shared' / 'parity' / 'manifests'
LEAVES = [p for p in sorted(CONFIGS.glob('*/*.py')) if p.parent.name != '_base_']

# Names of the official configs, and of ours.
OFFICIAL = {
    'centermask_R_50_FPN_ms_3x': 'centermask_r50_fpn_ms-3x_coco',
    'centermask_R_101_FPN_ms_3x': 'centermask_r101_fpn_ms-3x_coco',
    'centermask_X_101_FPN_ms_3x': 'centermask_x101_fpn_ms-3x_coco',
    'centermask_V_39_eSE_FPN_ms_3x': 'centermask_v39_fpn_ms-3x_coco',
    'centermask_V_57_eSE_FPN_ms_3x': 'centermask_v57_fpn_ms-3x_coco',
    'centermask_V_99_eSE_FPN_ms_3x': 'centermask_v99_fpn_ms-3x_coco',
    'centermask_V_39_eSE_dcn_FPN_ms_3x': 'centermask_v39-dcn_fpn_ms-3x_coco',
    'centermask_V_57_eSE_dcn_FPN_ms_3x': 'centermask_v57-dcn_fpn_ms-3x_coco',
    'centermask_V_99_eSE_dcn_FPN_ms_3x': 'centermask_v99-dcn_fpn_ms-3x_coco',
    'centermask_lite_Mv2_FPN_ms_4x': 'centermask-lite_mv2_fpn_ms-4x_coco',
    'centermask_lite_V_19_eSE_FPN_ms_4x': 'centermask-lite_v19_fpn_ms-4x_coco',
    'centermask_lite_V_19_slim_eSE_FPN_ms_4x': (
        'centermask-lite_v19-slim_fpn_ms-4x_coco'
    ),
    'centermask_lite_V_19_slim_dw_eSE_FPN_ms_4x': (
        'centermask-lite_v19-slim-dw_fpn_ms-4x_coco'
    ),
    'centermask_lite_V_39_eSE_FPN_ms_4x': 'centermask-lite_v39_fpn_ms-4x_coco',
    'panoptic_centermask_R_50_FPN_ms_3x': 'panoptic-centermask_r50_fpn_ms-3x_coco',
    'panoptic_centermask_R_101_FPN_ms_3x': 'panoptic-centermask_r101_fpn_ms-3x_coco',
    'panoptic_centermask_X_101_FPN_ms_3x': 'panoptic-centermask_x101_fpn_ms-3x_coco',
    'panoptic_centermask_V_39_eSE_FPN_ms_3x': 'panoptic-centermask_v39_fpn_ms-3x_coco',
    'panoptic_centermask_V_57_eSE_FPN_ms_3x': 'panoptic-centermask_v57_fpn_ms-3x_coco',
    'panoptic_centermask_V_99_eSE_FPN_ms_3x': 'panoptic-centermask_v99_fpn_ms-3x_coco',
}
# Of the stock MobileNetV2; nothing reads what it computes.
UNREAD = 'backbone.conv2.'


def path_of(name: str) -> Path:
    (path,) = [path for path in LEAVES if path.stem == name]
    return path


@pytest.fixture(scope='module')
def entries() -> dict[str, object]:
    """The models of model-index.yml by the path of their config."""
    index = load(str(ROOT / 'model-index.yml'))
    entries = {model.config: model for model in index.models}
    assert len(entries) == len(index.models), 'a config is listed twice'
    return entries


def test_model_index_lists_every_config(entries):
    assert set(entries) == {str(path.relative_to(ROOT)) for path in LEAVES}


def test_every_folder_describes_its_own_configs():
    imported = [line[4:] for line in (ROOT / 'model-index.yml').read_text().split('\n')]
    for path in sorted(CONFIGS.glob('*/metafile.yml')):
        assert str(path.relative_to(ROOT)) in imported
        for model in load(str(path)).models:
            assert Path(ROOT / model.config).parent == path.parent


@pytest.mark.parametrize('path', LEAVES, ids=lambda path: path.stem)
def test_metafile_says_what_is_measured(entries, path):
    entry = entries[str(path.relative_to(ROOT))]
    assert entry.name == path.stem == path.stem.lower()
    collections = load(str(path.parent / 'metafile.yml')).collections
    (own,) = [c for c in collections if c.name == entry.in_collection]
    assert own.paper['URL'].startswith('https://arxiv.org/abs/')
    config, stated = Config.fromfile(path), entry.metadata.data
    model = shapes_of(config)
    width, height = map(int, stated['FLOPs Input'].split('x'))
    if path.stem.endswith('_coco'):
        assert (height, width) == network_shape(config)
    measured = dict(
        Parameters=parameters_of(model), FLOPs=flops_of(model, width, height)
    )
    assert {name: stated[name] for name in measured} == measured


def test_official_results_say_whose_they_are(entries):
    """Numbers that nobody measured with this package must not look as if."""
    scored = {e.name for e in entries.values() if e.results}
    marked = {e.name for e in entries.values() if 'Results Of' in e.metadata.data}
    assert scored == marked
    assert scored < set(OFFICIAL.values())
    values = {
        name: {
            metric: value
            for entry in entries.values()
            if entry.name == name
            for result in entry.results
            for metric, value in result.metrics.items()
        }
        for name in scored
    }
    assert values['centermask_v39_fpn_ms-3x_coco'] == {'box AP': 44.2, 'mask AP': 39.7}
    for metrics in values.values():
        assert metrics['box AP'] > metrics['mask AP']


def test_all_official_configs_have_a_counterpart():
    if not MANIFESTS.is_dir():
        pytest.skip(f'{MANIFESTS} is not there')
    assert {path.stem for path in MANIFESTS.glob('*.json')} == set(OFFICIAL)


@pytest.mark.parametrize('official', OFFICIAL)
def test_parameters_are_the_official_ones_under_new_names(official):
    """One to one: every tensor of the released file has its place, and no place is
    left over."""
    manifest = MANIFESTS / f'{official}.json'
    if not manifest.is_file():
        pytest.skip(f'{manifest} is not there')
    released = {
        name: torch.empty(shape, device='meta')
        for name, shape in json.loads(manifest.read_text()).items()
    }
    renamed = draft.start(released)
    assert not renamed.unexpected
    assert len(renamed.state) == len(released)
    model = shapes_of(Config.fromfile(path_of(OFFICIAL[official])))
    wanted = {
        name: tuple(tensor.shape)
        for name, tensor in model.state_dict().items()
        if not name.endswith('num_batches_tracked') and not name.startswith(UNREAD)
    }
    assert {name: tuple(t.shape) for name, t in renamed.state.items()} == wanted


def two_pictures(model: nn.Module) -> list[Picture]:
    """Different in size, so that one is padded; the second has nothing to find."""
    pictures = [picture(64, 96, boxes=((8, 8, 72, 56),), seed=1), picture(60, 80, ())]
    for pixels, sample in pictures if hasattr(model, 'semantic_head') else []:
        labels = torch.randint(0, 133, (1, *pixels.shape[-2:]))
        sample.gt_sem_seg = PixelData(sem_seg=labels)
    return pictures


def trained_step(name: str) -> tuple[nn.Module, dict[str, Tensor], Config]:
    """A freshly initialised model after one backward pass."""
    config = Config.fromfile(path_of(name))
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(config.model).train()
    batch = batch_of(model, *two_pictures(model), training=True)
    losses = model.loss(*batch)
    total(losses).backward()
    return model, losses, config


@pytest.mark.slow
@pytest.mark.parametrize('name', OFFICIAL.values())
def test_takes_a_training_step_and_predicts(name):
    model, losses, config = trained_step(name)
    expected = {
        'loss_cls',
        'loss_bbox',
        'loss_centerness',
        'loss_mask',
        'loss_mask_iou',
    }
    panoptic = hasattr(model, 'semantic_head')
    assert set(losses) == expected | ({'loss_seg'} if panoptic else set())
    assert all(loss.isfinite() for loss in losses.values())
    check_gradients(model, config)
    # An untrained head is sure of nothing: make it say something.
    nn.init.zeros_(model.bbox_head.conv_cls.bias)
    nn.init.constant_(model.bbox_head.conv_reg.bias, 2.0)  # boxes have a size
    model.test_cfg.bbox.max_per_img = 3  # the mask branch takes most of the time
    pictures = deepcopy(two_pictures(model))
    with torch.no_grad():
        results = model.eval().predict(*batch_of(model, *pictures))
    for result, (pixels, _) in zip(results, pictures, strict=True):
        found, size = result.pred_instances, pixels.shape[-2:]
        assert 0 < len(found) <= 3
        assert found.masks.shape == (len(found), *size)
        assert found.mask_scores.isfinite().all()
        if panoptic:
            assert result.pred_panoptic_seg.sem_seg.shape == (1, *size)


def check_gradients(model: nn.Module, config: Config) -> None:
    """Every parameter that is to learn has one, or DDP would stop."""
    silent = [
        name
        for name, p in model.named_parameters()
        if p.requires_grad and p.grad is None
    ]
    assert all(name.startswith(UNREAD) for name in silent), silent
    assert bool(silent) == config.get('find_unused_parameters', False)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert parameter.requires_grad and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize('folder', ['centermask', 'panoptic_centermask'])
@pytest.mark.parametrize('name', ['r50', 'r101', 'x101'])
def test_resnets_are_frozen_up_to_the_first_residual_stage(folder, name):
    kind = folder.replace('_', '-')
    backbone = shapes_of(
        Config.fromfile(path_of(f'{kind}_{name}_fpn_ms-3x_coco'))
    ).backbone
    learning = {
        n.split('.')[0] for n, p in backbone.named_parameters() if p.requires_grad
    }
    assert learning == {'layer2', 'layer3', 'layer4'}
    assert not any('bn' in n for n, p in backbone.named_parameters() if p.requires_grad)


@pytest.mark.parametrize('name', OFFICIAL.values())
def test_only_x101_divides_its_pixels(name):
    pixels = Config.fromfile(path_of(name)).model.data_preprocessor
    std = [57.375, 57.12, 58.395] if '_x101_' in name else [1.0, 1.0, 1.0]
    assert pixels.std == std
    assert pixels.mean == [103.53, 116.28, 123.675]
    assert not pixels.bgr_to_rgb
