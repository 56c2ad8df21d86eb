"""Equation 2's levels against exact fractions, and pooling from the right one."""

import random
from fractions import Fraction

import pytest
import torch
from mmcv.ops import roi_align
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope

from mmdet_centermask.models import AdaptiveRoIExtractor
from mmdet_centermask.models.roi_extractor import adaptive_roi_levels, image_areas_of

ROI_ALIGN = dict(type='RoIAlign', output_size=14, sampling_ratio=0)
STRIDES = [8, 16, 32]


def extractor(channels: int = 1, strides=STRIDES, **options) -> AdaptiveRoIExtractor:
    return AdaptiveRoIExtractor(
        {**ROI_ALIGN, **options}, out_channels=channels, featmap_strides=strides
    )


def level_maps(batch: int, height: int, width: int, channels: int = 1) -> tuple:
    """Maps that hold their own level number, so that features tell the level."""
    return tuple(
        torch.full((batch, channels, height // stride, width // stride), float(level))
        for level, stride in enumerate(STRIDES, 3)
    )


def level(roi: tuple[float, float], image: tuple[float, float], low=3, high=5) -> int:
    areas = [torch.tensor([float(w * h)]) for w, h in (roi, image)]
    (result,) = adaptive_roi_levels(*areas, low, high).tolist()
    return result


@pytest.mark.parametrize(
    'roi, image, expected',
    [
        # The whole picture, more than half of it, half: P5, P5, P4.
        ((800, 800), (800, 800), 5),
        ((401, 800), (800, 800), 5),
        ((400, 800), (800, 800), 4),
        ((399, 800), (800, 800), 4),
        # A quarter is the last of P3.
        ((401, 400), (800, 800), 4),
        ((400, 400), (800, 800), 3),
        ((399, 400), (800, 800), 3),
        # An eighth would be P2, which the mask branch does not read.
        ((200, 400), (800, 800), 3),
        ((1, 1), (1333, 800), 3),
        ((0, 0), (800, 800), 3),
        ((0, 700), (800, 800), 3),
        # An unclipped box may be larger than its picture.
        ((1600, 800), (800, 800), 5),
        ((8000, 8000), (800, 800), 5),
        # The same box counts for more in a smaller picture: that is the point.
        ((224, 224), (1333, 800), 3),
        ((224, 224), (400, 300), 4),
        ((224, 224), (256, 256), 5),
        # The sides do not matter, the area does.
        ((800, 401), (800, 800), 5),
        ((1333, 400), (1333, 800), 4),
    ],
)
def test_levels_by_hand(roi, image, expected):
    assert level(roi, image) == expected


def test_levels_with_other_limits():
    assert [level((s, s), (512, 512), 2, 5) for s in (512, 256, 128, 64, 32)] == [
        5,
        3,
        2,
        2,
        2,
    ]
    assert [level((s, 512), (512, 512), 2, 6) for s in (512, 256, 128, 64, 32)] == [
        6,
        5,
        4,
        3,
        2,
    ]
    assert level((64, 64), (512, 512), 4, 4) == 4


def test_levels_equal_exact_arithmetic():
    """ceil(5 + log2 r) is the smallest k with 2^(k-5) >= r: no logarithm needed."""
    rng = random.Random(0)
    cases = [
        (
            (rng.randint(1, 2 ** rng.randint(1, 10)), rng.randint(1, 1000)),
            (rng.randint(300, 1333), rng.randint(300, 800)),
        )
        for _ in range(500)
    ]
    # And pictures of which every power of two is an exact share.
    cases += [((2**i, 2**j), (1024, 512)) for i in range(11) for j in range(11)]
    for (w, h), (image_w, image_h) in cases:
        ratio = Fraction(w * h, image_w * image_h)
        expected = next(
            k for k in (3, 4, 5) if k == 5 or Fraction(2) ** (k - 5) >= ratio
        )
        assert level((w, h), (image_w, image_h)) == expected, (w, h, image_w, image_h)


def test_levels_of_many_pictures_at_once():
    levels = adaptive_roi_levels(
        torch.tensor([6400.0, 6400.0, 6400.0]),
        torch.tensor([6400.0, 12800.0, 9e5]),
        3,
        5,
    )
    assert levels.tolist() == [5, 4, 3]
    assert levels.dtype == torch.int64
    none = adaptive_roi_levels(torch.zeros(0), torch.zeros(0), 3, 5)
    assert none.shape == (0,) and none.dtype == torch.int64


def test_box_turned_inside_out_counts_as_empty():
    area = torch.tensor([-50.0])
    assert adaptive_roi_levels(area, torch.tensor([100.0]), 3, 5).tolist() == [3]


def test_image_areas_are_those_before_padding():
    metas = [
        dict(img_shape=(60, 90), pad_shape=(64, 96), ori_shape=(600, 900)),
        dict(img_shape=(20, 30, 3), pad_shape=(64, 96), ori_shape=(10, 15, 3)),
    ]
    areas = image_areas_of(metas, torch.zeros(5, dtype=torch.float32))
    assert areas.tolist() == [5400.0, 600.0]
    assert areas.dtype == torch.float32


def test_each_picture_of_a_batch_has_its_own_area():
    """Trap 6: with the padded area or another picture's, levels would differ."""
    rois = torch.tensor(
        [
            [0, 8.0, 8, 56, 56],  # 2304 of 4096: more than half
            [1, 8.0, 8, 56, 56],  # 2304 of 16384: less than a quarter
            [1, 8.0, 8, 120, 120],  # 12544 of 16384
            [0, 8.0, 8, 40, 40],  # 1024 of 4096: a quarter
            [0, 8.0, 8, 48, 48],  # 1600 of 4096
        ]
    )
    feats = level_maps(2, 128, 128)
    areas = torch.tensor([64.0 * 64, 128.0 * 128])
    pooled = extractor().eval()(feats, rois, image_areas=areas)
    assert pooled.shape == (5, 1, 14, 14)
    expected = torch.tensor([5.0, 3, 5, 3, 4])
    assert torch.allclose(pooled, expected[:, None, None, None].expand_as(pooled))
    # What the two mistakes would give, so the case does tell them apart.
    for wrong in (areas.flip(0), areas.new_full((2,), 128.0 * 128)):
        mistaken = extractor().eval()(feats, rois, image_areas=wrong)
        assert (mistaken - pooled).abs().max() > 0.5


def test_features_equal_mmcv_roi_align_on_the_assigned_map():
    torch.manual_seed(0)
    feats = tuple(torch.randn(2, 4, 128 // s, 160 // s) for s in STRIDES)
    corners = torch.rand(40, 2) * 100 - 10  # some reach out of the picture
    sizes = torch.rand(40, 2) * 120
    rois = torch.cat([torch.randint(0, 2, (40, 1)), corners, corners + sizes], 1)
    areas = torch.tensor([100.0 * 160, 128.0 * 90])
    pooled = extractor(4).eval()(feats, rois, image_areas=areas)
    seen = set()
    for roi, features in zip(rois, pooled, strict=True):
        ratio = (roi[3] - roi[1]) * (roi[4] - roi[2]) / areas[int(roi[0])]
        index = 2 if ratio > 0.5 else 1 if ratio > 0.25 else 0
        seen.add(index)
        expected = roi_align(
            feats[index], roi[None], (14, 14), 1 / STRIDES[index], 0, 'avg', True
        )
        assert torch.allclose(features, expected[0], atol=1e-6)
    assert seen == {0, 1, 2}


def test_features_of_a_ramp_by_hand():
    """Half-pixel aligned: cell i of a map lies at (i + 0.5) strides."""
    ramps = tuple(
        torch.arange(256 // s).float().repeat(1, 1, 256 // s, 1) for s in STRIDES
    )
    for box, stride in (((40, 40, 96, 96), 8), ((32, 48, 200, 200), 16)):
        roi = torch.tensor([[0, *box]]).float()
        pooled = extractor().eval()(ramps, roi, image_areas=torch.tensor([256.0 * 256]))
        x1, _, x2, _ = box
        centres = x1 + (torch.arange(14) + 0.5) * (x2 - x1) / 14
        expected = (centres / stride - 0.5).expand(14, 14)
        assert torch.allclose(pooled[0, 0], expected, atol=1e-4)


def test_channels_last_maps_give_the_same_features():
    """mmcv's operator on the CPU ignores strides and would read other pixels."""
    torch.manual_seed(0)
    feats = tuple(torch.randn(1, 4, 128 // s, 128 // s) for s in STRIDES)
    rois = torch.tensor([[0, 8.0, 8, 120, 120], [0, 40, 8, 80, 40], [0, 8, 8, 88, 70]])
    areas = torch.tensor([128.0 * 128])
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        maps = [f.clone(memory_format=memory_format).requires_grad_() for f in feats]
        pooled = extractor(4)(maps, rois, image_areas=areas)
        pooled.square().sum().backward()
        results.append([pooled, *(m.grad for m in maps)])
    for plain, channels_last in zip(*results, strict=True):
        assert torch.allclose(plain, channels_last)


def test_growing_rois_changes_the_crop_but_not_the_level():
    torch.manual_seed(0)
    feats = tuple(torch.randn(1, 2, 128 // s, 128 // s) for s in STRIDES)
    roi = torch.tensor([[0, 40.0, 40, 80, 80]])  # below a quarter; doubled, above
    areas = torch.tensor([100.0 * 100])
    pooled = extractor(2).eval()(feats, roi, roi_scale_factor=2.0, image_areas=areas)
    grown = torch.tensor([[0, 20.0, 20, 100, 100]])
    expected = roi_align(feats[0], grown, (14, 14), 1 / 8, 0, 'avg', True)
    assert torch.allclose(pooled, expected)


@pytest.mark.parametrize('boxes', [[], [[0, 8.0, 8, 24, 24]]])
def test_unused_levels_take_part_in_the_graph_when_training(boxes):
    """Else processes of a distributed run disagree about who has a gradient."""
    rois = torch.tensor(boxes).reshape(-1, 5)
    areas = torch.tensor([128.0 * 128])
    feats = [f.requires_grad_() for f in level_maps(1, 128, 128)]
    module = extractor()
    pooled = module(feats, rois, image_areas=areas)
    assert pooled.shape == (len(boxes), 1, 14, 14)
    pooled.sum().backward()
    assert [f.grad is None for f in feats] == [False, False, False]
    assert [bool(f.grad.any()) for f in feats] == [len(boxes) > 0, False, False]
    # And nothing else comes of it.
    assert torch.allclose(pooled, torch.tensor(3.0))
    assert torch.equal(module.eval()(feats, rois, image_areas=areas), pooled)


def test_no_rois_in_eval_mode():
    pooled = extractor(7).eval()(
        level_maps(2, 64, 64, 7), torch.zeros(0, 5), image_areas=torch.ones(2)
    )
    assert pooled.shape == (0, 7, 14, 14)


def test_works_in_a_stock_roi_head_which_hands_over_no_areas():
    """Mask R-CNN's head does not know picture sizes: the padded one stands in."""
    init_default_scope('mmdet')
    head = StandardRoIHead(
        mask_roi_extractor=ConfigDict(
            type='AdaptiveRoIExtractor',
            roi_layer=ROI_ALIGN,
            out_channels=1,
            featmap_strides=STRIDES,
        ),
        mask_head=ConfigDict(
            type='FCNMaskHead', num_convs=0, in_channels=1, conv_out_channels=1
        ),
    ).eval()
    rois = torch.tensor(
        [[1, 8.0, 8, 120, 120], [0, 8.0, 8, 88, 120], [0, 8, 8, 24, 24]]
    )
    found = head._mask_forward(level_maps(2, 128, 128), rois)['mask_feats']
    # 12544, 8960 and 256 of 16384.
    assert found[:, 0, 7, 7].tolist() == [5.0, 5.0, 3.0]
    assert torch.equal(
        found,
        head.mask_roi_extractor(
            level_maps(2, 128, 128), rois, image_areas=torch.full((2,), 128.0 * 128)
        ),
    )


@pytest.mark.parametrize(
    'strides', [[8, 16, 24], [8, 32], [16, 8], [8, 8], [0, 1], [6, 12], [8.5, 16], []]
)
def test_strides_that_are_no_pyramid(strides):
    with pytest.raises(ValueError) as error:
        extractor(strides=strides)
    assert str(error.value) == (
        f'AdaptiveRoIExtractor: featmap_strides={strides} must be consecutive powers '
        'of two such as [8, 16, 32]'
    )


@pytest.mark.parametrize('size', ['14', [14], [], None, 14.0, 0, [14, 'a']])
def test_size_of_what_is_pooled(size):
    layer = dict(ROI_ALIGN, output_size=size)
    with pytest.raises(ValueError) as error:
        AdaptiveRoIExtractor(layer, 1, STRIDES)
    assert str(error.value) == (
        f'AdaptiveRoIExtractor: roi_layer.output_size={size!r} must be one or two '
        'whole numbers'
    )


def test_strides_name_the_levels():
    module = extractor(strides=[4, 8, 16, 32])
    assert (module.min_level, module.max_level) == (2, 5)
    assert extractor(strides=(16,)).min_level == 4


def test_is_registered_in_mmdet():
    init_default_scope('mmdet')
    cfg = dict(
        type='AdaptiveRoIExtractor',
        roi_layer=ROI_ALIGN,
        out_channels=1,
        featmap_strides=STRIDES,
    )
    assert type(MODELS.build(cfg)) is AdaptiveRoIExtractor
