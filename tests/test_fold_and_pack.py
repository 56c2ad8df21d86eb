"""Folded norms and packed convs compute what they replace."""

import pytest
import torch
from mmcv.cnn import ConvModule
from torch import nn

from mmdet_centermask.speed.fold_norms import count_norms, fold_norms
from mmdet_centermask.speed.packed_conv import PackedConv2d, can_pack, pack_convs

needs_onednn = pytest.mark.skipif(
    not can_pack(torch.float32), reason='torch without oneDNN'
)


def lively(module: nn.Module) -> nn.Module:
    """``module`` in eval mode, with norms that do something."""
    generator = torch.Generator().manual_seed(1)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.weight.data, norm.running_var):
                tensor.uniform_(0.5, 2, generator=generator)
            for tensor in (norm.bias.data, norm.running_mean):
                tensor.normal_(generator=generator)
    return module.eval().requires_grad_(False)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def test_folding_keeps_the_function():
    block = lively(
        nn.Sequential(
            ConvModule(3, 8, 3, norm_cfg=dict(type='BN')),
            nn.Conv2d(8, 4, 1),
            nn.BatchNorm2d(4),
        )
    )
    x = noise(2, 3, 9, 7)
    expected = block(x)
    assert fold_norms(block) == 2
    assert count_norms(block) == 0
    torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-5)


def test_a_conv_shared_by_two_norms_is_folded_twice_not_on_top():
    levels = nn.ModuleList(
        ConvModule(4, 4, 3, norm_cfg=dict(type='BN')) for _ in range(2)
    )
    levels[1].conv = levels[0].conv
    lively(levels)
    x = noise(1, 4, 6, 6)
    expected = [level(x) for level in levels]
    fold_norms(levels)
    for level, answer in zip(levels, expected, strict=True):
        torch.testing.assert_close(level(x), answer, rtol=1e-5, atol=1e-5)


def test_a_norm_that_learns_from_the_batch_is_left_alone():
    block = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1))
    assert fold_norms(lively(block)) == 0
    assert count_norms(block) == 1


@needs_onednn
@pytest.mark.parametrize('relu', [False, True])
@pytest.mark.parametrize(
    'conv',
    [
        nn.Conv2d(5, 7, 3, padding=1),
        nn.Conv2d(5, 7, 3, stride=2, padding=1, bias=False),
        nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8),
        nn.Conv2d(5, 7, 1),
    ],
    ids=['plain', 'stride', 'depthwise', 'pointwise'],
)
def test_packed_conv_is_the_conv(conv, relu):
    x = noise(2, conv.in_channels, 11, 9)
    expected = conv(x).relu() if relu else conv(x)
    packed = PackedConv2d(conv, relu)
    torch.testing.assert_close(packed(x), expected, rtol=1e-5, atol=1e-5)
    nothing = packed(x[:0])
    assert nothing.shape == conv(x[:0]).shape


@needs_onednn
def test_packed_conv_follows_the_size_of_its_input():
    conv = nn.Conv2d(5, 7, 3, padding=1)
    packed = PackedConv2d(conv)
    packs = []
    for side in (4, 5, 32, 8, 64, 3):
        x = noise(1, 5, side, side)
        torch.testing.assert_close(packed(x), conv(x), rtol=1e-5, atol=1e-5)
        packs.append(packed.packed_for)
    # Again from twice as many positions on; smaller maps keep what there is.
    assert packs == [16, 16, 1024, 1024, 4096, 4096]


@needs_onednn
def test_packing_takes_the_relu_along_and_spares_what_it_cannot_do():
    block = lively(
        nn.Sequential(
            ConvModule(3, 8, 3, norm_cfg=dict(type='BN')),
            ConvModule(8, 8, 3, norm_cfg=dict(type='GN', num_groups=2)),
            ConvModule(8, 8, 1, act_cfg=None),
            nn.Conv2d(8, 8, 3, padding=1, padding_mode='reflect'),
        )
    )
    x = noise(1, 3, 12, 12)
    expected = block(x)
    fold_norms(block)
    assert pack_convs(block) == 3
    assert [type(part) for part in block[3:]] == [nn.Conv2d]
    # The ReLU is behind a folded batch norm, and not behind a group norm.
    activations = [part.conv.activation for part in block[:3]]
    assert activations == ['relu', 'none', 'none']
    torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-5)
