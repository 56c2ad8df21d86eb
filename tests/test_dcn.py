"""Deformable VoVNet: what mmcv's modules compute in it, against a plain oracle."""

from __future__ import annotations

import pytest
import torch
from mmcv.ops import DeformConv2dPack, ModulatedDeformConv2dPack
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from tiny_centermask import CONFIGS
from torch import Tensor, nn

from mmdet_centermask.models import VoVNet

KINDS = dict(DCN=DeformConv2dPack, DCNv2=ModulatedDeformConv2dPack)


def slim_net(kind: str) -> VoVNet:
    torch.manual_seed(0)
    return VoVNet(
        'V-19-slim',
        dcn=dict(type=kind, deform_groups=1),
        stage_with_dcn=(False, True, True, True),
    )


def sampled(x: Tensor, ys: Tensor, xs: Tensor) -> Tensor:
    """Bilinear samples ``(C, n)`` of ``x`` ``(C, H, W)`` at pixel positions; 0 outside.

    Written as the sum over all pixels, weighed with the two triangles.
    """
    height, width = x.shape[-2:]
    rows = (1 - (ys[:, None] - torch.arange(height)).abs()).clamp(min=0)
    columns = (1 - (xs[:, None] - torch.arange(width)).abs()).clamp(min=0)
    return torch.einsum('chw,nh,nw->cn', x, rows, columns)


def deformed(x: Tensor, weight: Tensor, offsets: Tensor, gates: Tensor) -> Tensor:
    """A 3x3 deformable conv, stride 1, padding 1, of one map.

    Args:
        x: ``(C, H, W)``.
        weight: ``(D, C, 3, 3)``.
        offsets: ``(18, H, W)``: down and right, for each tap in row-major order.
        gates: ``(9, H, W)``, the weight of each tap.

    Returns:
        ``(D, H, W)``.
    """
    height, width = x.shape[-2:]
    ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    out = x.new_zeros(len(weight), height * width)
    for tap in range(9):
        down, right = offsets[2 * tap], offsets[2 * tap + 1]
        values = sampled(
            x,
            (ys + tap // 3 - 1 + down).flatten(),
            (xs + tap % 3 - 1 + right).flatten(),
        )
        out += weight[:, :, tap // 3, tap % 3] @ (values * gates[tap].flatten())
    return out.reshape(-1, height, width)


def deformable_layers(net: VoVNet) -> list[nn.Module]:
    return [m for m in net.modules() if isinstance(m, tuple(KINDS.values()))]


@pytest.mark.parametrize('kind', KINDS)
def test_layer_samples_where_its_offsets_point(kind):
    net = slim_net(kind)
    layer = deformable_layers(net)[0]
    nn.init.normal_(layer.conv_offset.weight, std=0.05)
    nn.init.normal_(layer.conv_offset.bias, std=1.5)
    x = torch.rand(1, layer.in_channels, 7, 9)
    with torch.no_grad():
        answers = layer.conv_offset(x)
        offsets, gates = answers[0, :18], answers[0, 18:].sigmoid()
        if kind == 'DCN':
            gates = torch.ones(9, 7, 9)
        expected = deformed(x[0], layer.weight, offsets, gates)
        # Some samples fall between pixels and some beyond the border.
        assert offsets.abs().max() > 2
        torch.testing.assert_close(layer(x)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('kind', KINDS)
def test_offsets_learn(kind):
    net = slim_net(kind)
    sum(x.square().sum() for x in net(torch.rand(1, 3, 96, 96))).backward()
    for layer in deformable_layers(net):
        assert layer.conv_offset.weight.grad.abs().sum() > 0
        assert layer.conv_offset.weight.grad.isfinite().all()


@pytest.mark.parametrize('stage, side', [(2, 45), (3, 93)])
def test_smallest_picture_of_the_first_kind(stage, side):
    """The limit is mmcv's own: one pixel less, and its operator would fail."""
    flags = [False, *(i <= stage for i in (1, 2, 3))]
    net = VoVNet('V-19-slim', dcn=dict(type='DCN'), stage_with_dcn=flags)
    net.eval()
    with torch.no_grad():
        assert min(net(torch.zeros(1, 3, side, side + 32))[stage].shape[-2:]) == 3
        small = torch.zeros(1, 3, side + 32, side - 1)
        message = f'a picture of {side + 32} x {side - 1} .* pad it to {side} pixels'
        with pytest.raises(ValueError, match=message):
            net(small)
        net.smallest_side = 0
        with pytest.raises(RuntimeError, match='smaller than kernel'):
            net(small)


def test_second_kind_takes_small_pictures():
    with torch.no_grad():
        x = slim_net('DCNv2').eval()(torch.zeros(1, 3, 32, 32))
        assert x[-1].shape[-2:] == (1, 1)


@pytest.mark.parametrize('kind, channels', [('DCN', 18), ('DCNv2', 27)])
@pytest.mark.parametrize('arch, layers', [('v39', 25), ('v57', 40), ('v99', 75)])
def test_configs_deform_every_3x3_conv_of_stages_3_to_5(arch, layers, kind, channels):
    init_default_scope('mmdet')
    path = CONFIGS / 'centermask' / f'centermask_{arch}-dcn_fpn_ms-3x_coco.py'
    cfg = Config.fromfile(path).model.backbone
    assert cfg.dcn.type == 'DCNv2'
    cfg.dcn.type = kind
    with torch.device('meta'):
        net = MODELS.build(cfg)
    assert not any(deformable_layers(part) for part in (net.stem, net.stages[0]))
    found = deformable_layers(net)
    assert len(found) == layers
    assert {type(layer) for layer in found} == {KINDS[kind]}
    assert {layer.conv_offset.out_channels for layer in found} == {channels}
    deformed_3x3 = [c for c in net.stages[1:].modules() if isinstance(c, nn.Conv2d)]
    # What is left is the offsets' own, 1x1 or a gate.
    assert all(
        c.kernel_size == (1, 1) or c.out_channels == channels for c in deformed_3x3
    )
