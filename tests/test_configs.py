"""Every config parses and builds; the official ones hold the recipe's numbers."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS, TRANSFORMS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope
from tiny_centermask import CONFIGS, picture
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet_centermask.experiment import walk_datasets
from mmdet_centermask.models import CenterMask, VoVNet

LEAVES = {
    path.stem: path
    for path in sorted(CONFIGS.glob('*/*.py'))
    if path.parent.name != '_base_'
}
FULL = [f'centermask_{v}_fpn_ms-3x_coco' for v in ('v19', 'v39', 'v57', 'v99')]
LITE = [
    f'centermask-lite_{v}_fpn_ms-4x_coco'
    for v in ('v19', 'v19-slim', 'v19-dw', 'v19-slim-dw', 'v39')
]
OTHERS = [
    'centermask-lite_v19-slim-dw_fpn_quickstart',
    'centermask-lite_v19-slim_fpn_nuclei',
]
# Small enough for a training step within seconds.
TRAINED = [LITE[1], LITE[2], LITE[3], *OTHERS]


@cache
def config(name: str) -> Config:
    return Config.fromfile(LEAVES[name])


@cache
def shapes_of(name: str) -> nn.Module:
    """The model without numbers: torch's meta device gives shapes, at once."""
    init_default_scope(config(name).default_scope)
    with torch.device('meta'):
        return MODELS.build(config(name).model)


def test_configs_of_the_issue_are_there():
    assert set(FULL + LITE + OTHERS) <= set(LEAVES)


def test_names_are_unique_in_lower_case():
    """mim finds a config by its basename, wherever it lies."""
    names = [path.name for path in CONFIGS.rglob('*.py') if '_base_' not in path.parts]
    assert len(names) == len(set(names)) == len(LEAVES)
    assert all(name == name.lower() for name in names)


@pytest.mark.parametrize('name', LEAVES)
def test_leaf_is_short(name):
    """What is written twice drifts apart: a leaf says what is its own."""
    assert 3 <= len(LEAVES[name].read_text().splitlines()) <= 15


@pytest.mark.parametrize('path', sorted((CONFIGS / '_base_' / 'models').glob('*.py')))
def test_model_bases_import_the_package(path):
    """Trap 7: MMDetection's own tools know nothing of the package but this."""
    cfg = Config.fromfile(path)
    expected = dict(imports=['mmdet_centermask'], allow_failed_imports=False)
    assert cfg.custom_imports == expected


@pytest.mark.parametrize('name', LEAVES)
def test_config_is_complete_and_builds(name):
    cfg = config(name)
    assert cfg.default_scope == 'mmdet'
    assert cfg.custom_imports.imports == ['mmdet_centermask']
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        for field, dataset in walk_datasets(cfg[key].dataset, key):
            assert dataset.pipeline, field
    for key in ('val_evaluator', 'test_evaluator', 'optim_wrapper', 'auto_scale_lr'):
        assert cfg[key]
    model = shapes_of(name).eval()
    backbone = model.backbone
    if isinstance(backbone, VoVNet):
        assert list(backbone.out_channels) == list(model.neck.in_channels)
        if any(cfg.model.backbone.get('stage_with_dcn', [])):
            return  # the operator cannot do without numbers
    with torch.no_grad():
        x = model.extract_feat(torch.empty(1, 3, 128, 256, device='meta'))
    assert len({m.shape[1] for m in x}) == 1
    finest = x[0].shape[-1]
    assert finest in (32, 64)  # stride 8, or 4
    assert [m.shape[-1] for m in x] == [finest // 2**i for i in range(len(x))]


@pytest.mark.parametrize('name', [n for n in LEAVES if n.startswith('centermask')])
def test_heads_give_what_the_classes_need(name):
    model, classes = shapes_of(name).eval(), config(name).model.num_classes
    assert type(model) is CenterMask
    channels = model.neck.out_channels
    sizes = [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
    with torch.no_grad():
        x = [torch.empty(1, channels, *size, device='meta') for size in sizes]
        cls, distances, centerness = model.bbox_head(x)
        rois = torch.empty(3, channels, 14, 14, device='meta')
        masks = model.roi_head.mask_head(rois)
        ious = model.roi_head.mask_iou_head(rois, masks[:, 0])
    for maps, depth in ((cls, classes), (distances, 4), (centerness, 1)):
        assert [m.shape for m in maps] == [(1, depth, *size) for size in sizes]
    assert masks.shape == (3, classes, 28, 28)
    assert ious.shape == (3, classes)


def parameters(backbone: int, maps: tuple, channels: int, convs: int) -> int:
    """Of a whole CenterMask for 80 classes, counted by hand.

    Args:
        backbone: Its own parameters.
        maps: Channels of C3, C4, C5.
        channels: Of neck and heads.
        convs: In each tower, the mask head and the IoU head.
    """
    conv = 9 * channels**2 + channels
    fpn = sum(maps) * channels + 3 * channels + 5 * conv
    towers = 2 * convs * (conv + 2 * channels)  # group norm
    fcos = towers + 9 * channels * (80 + 4 + 1) + 80 + 4 + 1 + 5  # and 5 scales
    mask = convs * conv + 18 + 4 * channels**2 + channels + 80 * (channels + 1)
    # The IoU head reads the features and one mask, at 14 x 14, halved once.
    iou = convs * conv + 9 * channels
    iou += (49 * channels + 1) * 1024 + 1025 * 1024 + 1025 * 80
    return backbone + fpn + fcos + mask + iou


@pytest.mark.parametrize(
    'name, expected',
    [
        (FULL[1], parameters(25_184_128, (512, 768, 1024), 256, 4)),
        (FULL[3], parameters(69_523_520, (512, 768, 1024), 256, 4)),
        (LITE[0], parameters(10_180_416, (512, 768, 1024), 128, 2)),
        (LITE[3], parameters(1_384_752, (256, 384, 512), 128, 2)),
    ],
)
def test_parameters_of_the_whole_model(name, expected):
    model = shapes_of(name)
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize('name', FULL + LITE)
def test_model_of_the_official_recipe(name):
    model = config(name).model
    lite = name in LITE
    channels, convs = (128, 2) if lite else (256, 4)
    assert model.num_classes == 80
    assert model.backbone.arch.lower() == name.split('_')[1].replace('v', 'v-', 1)
    assert model.neck.out_channels == channels
    assert model.neck.num_outs == 5
    # P6 and P7 come from P5, not from C5.
    assert model.neck.add_extra_convs == 'on_output'
    head = model.bbox_head
    assert head.type == 'FCOSHead'  # stock
    assert head.stacked_convs == convs and head.feat_channels == channels
    assert head.norm_cfg.type == 'GN' and head.norm_cfg.num_groups == 32
    assert head.center_sampling and head.center_sample_radius == 1.5
    assert head.norm_on_bbox and head.centerness_on_reg and head.conv_bias is True
    assert head.loss_bbox.type == 'GIoULoss'
    # Trap 3: boxes are clipped at the end, not before NMS and RoIAlign.
    assert head.bbox_coder.clip_border is False
    roi_head = model.roi_head
    assert roi_head.mask_head.num_convs == convs
    assert roi_head.mask_iou_head.type == 'MaskIoUHead'  # stock
    assert roi_head.mask_roi_extractor.featmap_strides == [8, 16, 32]
    assert roi_head.mask_roi_extractor.roi_layer.output_size == 14
    rcnn = model.train_cfg.rcnn
    assert rcnn.mask_thr_binary == 0.0  # trap 5: a logit
    assert model.test_cfg.rcnn.mask_thr_binary == 0.5
    assert rcnn.mask_size == 28
    assert rcnn.assigner.pos_iou_thr == rcnn.assigner.neg_iou_thr == 0.5
    assert (rcnn.sampler.num, rcnn.sampler.pos_fraction) == (512, 0.25)
    assert rcnn.sampler.add_gt_as_proposals
    boxes = model.test_cfg.bbox
    assert (boxes.score_thr, boxes.nms.iou_threshold, boxes.max_per_img) == (
        0.05,
        0.6,
        50,
    )
    prep = model.data_preprocessor
    assert prep.mean == [103.53, 116.28, 123.675] and prep.std == [1, 1, 1]
    assert prep.bgr_to_rgb is False and prep.pad_mask and prep.pad_size_divisor == 32


@pytest.mark.parametrize('name', FULL + LITE)
def test_norms_of_the_backbone_are_frozen_and_no_stage_is(name):
    backbone = shapes_of(name).backbone
    backbone.train()
    norms = [m for m in backbone.modules() if isinstance(m, _BatchNorm)]
    frozen = {id(p) for n in norms for p in n.parameters()}
    assert norms and not any(n.training for n in norms)
    assert all(p.requires_grad != (id(p) in frozen) for p in backbone.parameters())


@pytest.mark.parametrize(
    'name',
    [
        *OTHERS,
        'panoptic-centermask_v19-slim-dw_fpn_quickstart',
        'condinst_r18_fpn_nuclei',
    ],
)
def test_from_scratch_no_side_of_a_box_starts_without_a_gradient(name):
    """FCOS clamps distances at 0; of a bias of 0 many start below."""
    init_default_scope('mmdet')
    stock = {**config(name).model.bbox_head, 'num_classes': 5}
    start = stock.pop('init_cfg')

    def sides_at_zero(bbox_head):
        torch.manual_seed(0)
        head = MODELS.build(bbox_head)
        head.init_weights()
        features = torch.randn(1, head.in_channels, 16, 16)
        distances = head((features,) * 5)[1]
        return torch.cat([d.flatten() for d in distances]).eq(0).float().mean().item()

    assert sides_at_zero(dict(stock, init_cfg=start)) < 0.01
    assert sides_at_zero(stock) > 0.2


@pytest.mark.parametrize('name', FULL + LITE)
def test_schedule_of_the_official_recipe(name):
    cfg = config(name)
    iterations, steps = (
        (360_000, [300_000, 340_000]) if name in LITE else (270_000, [210_000, 250_000])
    )
    assert cfg.train_cfg.type == 'ResumableTrainLoop'
    assert cfg.train_cfg.max_iters == iterations
    warm_up, drops = cfg.param_scheduler
    assert drops.type == 'MultiStepLR' and drops.by_epoch is False
    assert (drops.milestones, drops.gamma) == (steps, 0.1)
    assert drops.begin == 0 and drops.end == iterations
    optimizer = cfg.optim_wrapper.optimizer
    assert optimizer == dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4)
    assert cfg.auto_scale_lr.base_batch_size == 16


def test_learning_rate_of_the_first_iterations():
    """1000 iterations of warm-up from a thousandth, then the full rate."""
    cfg = config(FULL[1])
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.01)
    schedulers = [
        PARAM_SCHEDULERS.build(s, default_args=dict(optimizer=optimizer))
        for s in cfg.param_scheduler
    ]
    rates = []
    for _ in range(1200):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    assert rates[0] == pytest.approx(1e-5)
    assert rates[500] == pytest.approx(0.005, rel=0.01)
    assert rates[998] < 0.01
    assert rates[1000:] == pytest.approx([0.01] * 200)


@pytest.mark.parametrize('name', FULL + LITE)
def test_weight_decay_spares_norms_only(name):
    cfg = config(name)
    model = shapes_of(name)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).param_groups
    decay = {id(p): g['weight_decay'] for g in groups for p in g['params']}
    norms = [m for m in model.modules() if isinstance(m, (_BatchNorm, nn.GroupNorm))]
    of_norms = {id(p) for m in norms for p in m.parameters()}
    assert any(isinstance(m, nn.GroupNorm) for m in norms)
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            expected = 0 if id(parameter) in of_norms else 1e-4
            assert decay[id(parameter)] == expected, parameter_name
    assert {g['lr'] for g in groups} == {0.01}


def resized(pipeline: list, shape: tuple, draws: int = 1) -> set:
    """Sizes that the pipeline's resize gives a picture of ``shape``."""
    (step,) = [t for t in pipeline if t['type'].endswith('Resize')]
    transform = TRANSFORMS.build(step)
    sizes = set()
    for _ in range(draws):
        data = dict(img=np.zeros((*shape, 3), np.uint8), img_shape=shape)
        sizes.add(tuple(transform(data)['img_shape'][:2]))
    return sizes


@pytest.mark.parametrize('name', FULL + LITE)
def test_sizes_of_pictures(name):
    """Shorter side 640 to 800 by 32, longer 1333 at most; Lite 580 or 600, 1000."""
    cfg = config(name)
    init_default_scope('mmdet')
    np.random.seed(0)
    sides, limit = ([580, 600], 1000) if name in LITE else (range(640, 801, 32), 1333)
    found = resized(cfg.train_pipeline, (300, 400), draws=80)
    assert {height for height, _ in found} == set(sides)
    assert {height for _, height in resized(cfg.train_pipeline, (400, 300), 80)} == set(
        sides
    )
    # A wide picture is bound by its longer side.
    assert resized(cfg.train_pipeline, (100, 1000), 9) == {(limit // 10, limit)}
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        pipeline = loader.dataset.pipeline
        assert {h for h, _ in resized(pipeline, (300, 400))} == {sides[-1]}
        assert resized(pipeline, (100, 1000)) == {(limit // 10, limit)}
    assert cfg.train_dataloader.dataset.pipeline == cfg.train_pipeline


@pytest.mark.parametrize('name', FULL + LITE)
def test_pictures_are_normalised_as_bgr(name):
    preprocessor = MODELS.build(config(name).model.data_preprocessor)
    blue = torch.zeros(3, 33, 40, dtype=torch.uint8)
    blue[0] = 255  # mmcv reads pictures as BGR
    out = preprocessor(dict(inputs=[blue], data_samples=None))['inputs']
    assert out.shape == (1, 3, 64, 64)
    assert out[0, :, 5, 5].tolist() == pytest.approx([151.47, -116.28, -123.675])
    assert out[0, :, 40, 50].tolist() == [0, 0, 0]


@pytest.mark.parametrize('name', TRAINED)
def test_one_step_of_training_and_a_prediction(name):
    cfg = config(name)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)  # the file of weights is init_weights' affair
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    classes = cfg.model.num_classes
    boxes = [(8, 8, 40, 48), (30, 20, 60, 60)]
    pictures = [
        picture(boxes=boxes, labels=[0, classes - 1]),
        picture(boxes=(), seed=1),
    ]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    data = dict(inputs=[p for p, _ in pictures], data_samples=[s for _, s in pictures])
    log = model.train().train_step(data, wrapper)
    parts = {'loss_cls', 'loss_bbox', 'loss_centerness', 'loss_mask', 'loss_mask_iou'}
    assert set(log) == parts | {'loss'}
    assert log['loss'].item() == pytest.approx(sum(log[k].item() for k in parts), 1e-5)
    for name_, parameter in model.named_parameters():
        assert parameter.isfinite().all(), name_
        if parameter.dim() > 1:  # biases of silent classes may stand still
            assert torch.equal(parameter, before[name_]) != parameter.requires_grad
    samples = model.test_step(
        dict(inputs=data['inputs'], data_samples=data['data_samples'])
    )
    for sample in samples:
        found = sample.pred_instances
        assert found.masks.shape == (len(found), 64, 64)
        assert found.mask_scores.shape == found.scores.shape


@pytest.mark.parametrize('name', OTHERS)
def test_configs_from_scratch_learn_their_norms(name):
    backbone = shapes_of(name).backbone.train()
    assert config(name).model.backbone.get('init_cfg') is None
    norms = [m for m in backbone.modules() if isinstance(m, _BatchNorm)]
    assert norms and all(n.training and n.weight.requires_grad for n in norms)


def test_nuclei_are_one_class_with_rle_masks():
    cfg = config(OTHERS[1])
    assert cfg.model.num_classes == 1 == len(cfg.metainfo.classes)
    assert cfg.model.backbone.arch == 'V-19-slim'


def test_quickstart_counts_its_classes_once():
    cfg = config(OTHERS[0])
    assert cfg.model.num_classes == len(cfg.metainfo.classes)


@pytest.mark.slow
def test_a_fresh_process_builds_from_the_config_alone(tmp_path):
    """As MMDetection's tools do: nobody imports the package but the config."""
    code = (
        'import sys\n'
        'from mmengine.config import Config\n'
        'from mmengine.registry import init_default_scope\n'
        'from mmdet.registry import MODELS\n'
        "assert 'mmdet_centermask' not in sys.modules\n"
        'cfg = Config.fromfile(sys.argv[1])\n'
        "init_default_scope('mmdet')\n"
        'print(type(MODELS.build(cfg.model)).__name__)\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', code, str(LEAVES[LITE[3]])],
        cwd=Path(CONFIGS).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == 'CenterMask'
