"""Spatial attention by hand, and SAG-Mask against MMDetection's FCN mask head."""

import logging
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet.models.roi_heads import FCNMaskHead
from mmdet.registry import MODELS
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch.utils.flop_counter import FlopCounterMode

from mmdet_centermask.models import SAGMaskHead
from mmdet_centermask.models.sag_mask_head import SpatialAttention


@pytest.fixture(autouse=True)
def quiet_scope():
    init_default_scope('mmdet')
    MMLogger.get_current_instance().setLevel(logging.WARNING)


def head(kind=SAGMaskHead, **options):
    sizes = dict(num_convs=2, in_channels=6, conv_out_channels=8, num_classes=3)
    return kind(**{**sizes, **options})


def test_attention_equals_its_formula():
    """Mean and maximum, 3x3 conv with zero padding, sigmoid: loops, in NumPy."""
    torch.manual_seed(0)
    attention = SpatialAttention()
    x = torch.randn(2, 5, 4, 6)
    weight = attention.conv.weight.detach().numpy().astype(np.float64)[0]
    values = x.numpy().astype(np.float64)
    expected = np.zeros((2, 1, 4, 6))
    for n in range(2):
        pooled = np.zeros((2, 6, 8))  # a border of zeros
        pooled[0, 1:-1, 1:-1] = values[n].mean(0)
        pooled[1, 1:-1, 1:-1] = values[n].max(0)
        for i in range(4):
            for j in range(6):
                total = (weight * pooled[:, i : i + 3, j : j + 3]).sum()
                expected[n, 0, i, j] = 1 / (1 + math.exp(-total))
    gate = attention.attention_map(x)
    assert gate.shape == (2, 1, 4, 6)
    assert np.allclose(gate.detach().numpy(), expected, atol=1e-6)
    assert np.allclose(attention(x).detach().numpy(), values * expected, atol=1e-6)


def test_attention_reads_the_mean_first_and_has_no_bias():
    attention = SpatialAttention()
    assert [tuple(p.shape) for p in attention.parameters()] == [(1, 2, 3, 3)]
    weight = torch.zeros(1, 2, 3, 3)
    weight[0, 0, 1, 1], weight[0, 1, 1, 1] = 2.0, -1.0
    attention.conv.weight.data = weight
    x = torch.tensor([1.0, 5.0]).reshape(1, 2, 1, 1)  # mean 3, maximum 5
    assert attention.attention_map(x).item() == pytest.approx(1 / (1 + math.exp(-1)))
    # Without a bias, nothing in is one half out.
    assert attention.attention_map(x * 0).item() == 0.5


@pytest.mark.parametrize('num_convs', [2, 4])
def test_convs_and_shapes(num_convs):
    sag = head(num_convs=num_convs)
    assert len(sag.convs) == num_convs
    assert sag.convs[0].conv.in_channels == 6
    assert sag(torch.rand(5, 6, 14, 14)).shape == (5, 3, 28, 28)
    assert sag(torch.rand(0, 6, 14, 14)).shape == (0, 3, 28, 28)


@pytest.mark.parametrize(
    'convs, channels, expected',
    # 3x3 convs, attention, 2x2 deconv, 1x1 for 80 classes; biases but in attention.
    [
        (4, 256, 4 * (9 * 256**2 + 256) + 18 + 4 * 256**2 + 256 + 257 * 80),
        (2, 128, 2 * (9 * 128**2 + 128) + 18 + 4 * 128**2 + 128 + 129 * 80),
    ],
)
def test_parameters_of_full_and_lite(convs, channels, expected):
    with torch.device('meta'):
        sag = SAGMaskHead(convs, in_channels=channels, conv_out_channels=channels)
    assert sum(p.numel() for p in sag.parameters()) == expected


def test_order_is_convs_attention_deconv_logits():
    torch.manual_seed(0)
    sag = head()
    x = torch.randn(2, 6, 14, 14)
    out = x
    for conv in sag.convs:
        out = F.conv2d(out, conv.conv.weight, conv.conv.bias, padding=1).relu()
    pooled = torch.stack([out.mean(1), out.max(1).values], 1)
    out = out * F.conv2d(pooled, sag.spatial_attention.conv.weight, padding=1).sigmoid()
    out = F.conv_transpose2d(out, sag.upsample.weight, sag.upsample.bias, stride=2)
    expected = F.conv2d(out.relu(), sag.conv_logits.weight, sag.conv_logits.bias)
    assert torch.allclose(sag(x), expected, atol=1e-5)


@pytest.mark.parametrize(
    'upsample_cfg',
    [
        dict(type='deconv', scale_factor=2),
        dict(type='nearest', scale_factor=2),
        dict(type='bilinear', scale_factor=2),
        dict(type=None),
    ],
)
def test_equals_the_stock_head_where_the_gate_is_one_half(upsample_cfg):
    torch.manual_seed(0)
    sag, stock = (
        head(upsample_cfg=upsample_cfg),
        head(FCNMaskHead, upsample_cfg=upsample_cfg),
    )
    x = torch.randn(3, 6, 14, 14)
    weights = sag.state_dict()
    weights.pop('spatial_attention.conv.weight').zero_()
    stock.load_state_dict(weights)  # strict: everything else is the stock head
    # The stock head halves with its own weights what the gate halves in ours.
    halving = stock.upsample if upsample_cfg['type'] == 'deconv' else stock.conv_logits
    halving.weight.data /= 2
    assert torch.allclose(sag(x), stock(x), atol=1e-6)


@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(class_agnostic=True),
        dict(predictor_cfg=dict(type='NormedConv2d', tempearture=20)),  # mmdet's name
    ],
    ids=['plain', 'class_agnostic', 'normed'],
)
def test_with_labels_only_the_masks_of_their_classes(options):
    torch.manual_seed(0)
    sag = head(**options)
    x, labels = torch.randn(4, 6, 14, 14), torch.tensor([2, 0, 2, 1])
    every = sag(x)
    expected = every if every.shape[1] == 1 else every[range(4), labels][:, None]
    assert expected.std() > 0.01
    torch.testing.assert_close(sag(x, labels), expected, rtol=1e-5, atol=1e-6)
    channels_last = x.to(memory_format=torch.channels_last)
    torch.testing.assert_close(sag(channels_last, labels), expected, atol=1e-5, rtol=0)
    assert sag(x[:0], labels[:0]).shape == (0, 1, 28, 28)


def test_with_labels_the_other_classes_are_not_computed():
    """Class 1 would be NaN in every sum that it takes part in."""
    sag = head()
    sag.conv_logits.weight.data[1] = float('nan')
    labels = torch.tensor([2, 0])
    with FlopCounterMode(display=False) as every:
        sag(torch.randn(2, 6, 14, 14))
    with FlopCounterMode(display=False) as own:
        assert sag(torch.randn(2, 6, 14, 14), labels).isfinite().all()
    # Two of three 1x1 convs with 8 inputs on 28 x 28, for two RoIs.
    saved = every.get_total_flops() - own.get_total_flops()
    assert saved == 2 * 2 * 2 * 8 * 28 * 28


def test_gate_changes_the_logits():
    torch.manual_seed(0)
    sag = head()
    x = torch.randn(1, 6, 14, 14)
    before = sag(x)
    sag.spatial_attention.conv.weight.data.zero_()
    assert not torch.allclose(sag(x), before)


def test_initialisation_covers_attention_as_well():
    weights = []
    for seed in range(100):
        torch.manual_seed(seed)
        sag = head(num_convs=1)
        for parameter in sag.parameters():
            torch.nn.init.constant_(parameter, 7.0)
        sag.init_weights()
        weights.append(sag.spatial_attention.conv.weight.detach().flatten())
    for name, parameter in sag.named_parameters():
        assert not (parameter == 7.0).any(), name
        if name.endswith('bias'):
            assert (parameter == 0).all(), name
    # Kaiming, fan out 9 * 1, over 1800 numbers.
    assert torch.cat(weights).std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.1)


def test_gradients_reach_the_attention():
    sag = head()
    sag(torch.rand(2, 6, 14, 14)).square().sum().backward()
    for name, parameter in sag.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_is_registered_in_mmdet():
    cfg = dict(type='SAGMaskHead', num_convs=1, in_channels=4, conv_out_channels=4)
    assert type(MODELS.build(cfg)) is SAGMaskHead
