"""Under autocast, what is delicate is computed in float32."""

import pytest
import torch
import torch.nn.functional as F
from mmcv.ops import RoIAlign
from mmdet.registry import MODELS
from tiny_centermask import batch_of, picture, talkative, tiny_model, total
from torch import nn

from mmdet_centermask.engine.narrow_maps import (
    ignores_second_column,
    widen_narrow_maps,
)
from mmdet_centermask.models.float32 import (
    at_least_float32,
    float32_island,
    run_in_float32,
)
from mmdet_centermask.models.roi_extractor import AdaptiveRoIExtractor
from mmdet_centermask.models.vovnet import EffectiveSE, OSABlock, spatial_mean

TYPES = (torch.float32, torch.bfloat16)
CPU = torch.device('cpu')
TWO_OBJECTS = ((8, 8, 40, 48), (34, 20, 60, 60))


def autocast():
    return torch.autocast('cpu', dtype=torch.bfloat16)


def test_island_is_out_of_autocast_and_back():
    x = torch.rand(4, 4)
    with autocast():
        with float32_island(CPU):
            assert (x @ x).dtype == torch.float32
        assert (x @ x).dtype == torch.bfloat16
    with float32_island(CPU):
        assert (x @ x).dtype == torch.float32


def test_precision_is_raised_and_never_lowered():
    for given, expected in (
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ):
        assert at_least_float32(torch.zeros(1, dtype=given)).dtype == expected


def test_module_in_float32_gives_back_the_type_it_was_given():
    linear = nn.Linear(4, 4)
    x = torch.rand(2, 4).bfloat16()
    with autocast():
        out = run_in_float32(linear, x)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, linear(x.float()).bfloat16())


def test_gate_is_computed_in_float32():
    """Channels whose means differ by less than one step of bfloat16, 0.5 at 100."""
    torch.manual_seed(0)
    gate = EffectiveSE(16)
    gate.fc.weight.data.normal_(0, 1)
    gate.fc.weight.data -= gate.fc.weight.data.mean(1, keepdim=True)
    share = torch.rand(2, 16, 1, 1)
    x = (100 + 0.5 * (torch.rand(2, 16, 64, 64) < share)).bfloat16()
    weight, bias = gate.fc.weight.double().flatten(1), gate.fc.bias.double()
    expected = F.hardsigmoid(x.double().mean((2, 3)) @ weight.t() + bias)
    with autocast():
        out = gate(x)
        rough = F.hardsigmoid(gate.fc(x.mean((2, 3), keepdim=True))).flatten(1)
    assert out.dtype == torch.bfloat16
    exact = x.double() * expected[..., None, None]
    assert torch.allclose(out.double(), exact, rtol=2**-7)
    # Autocast alone would be wrong in the first digit.
    assert (rough.double() - expected).abs().max() > 0.05


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.float32])
def test_means_of_short_maps(dtype):
    """A sum of 409,600 is beyond float16."""
    x = (100 + torch.randn(2, 3, 64, 64)).to(dtype)
    mean = spatial_mean(x, dtype)
    assert mean.shape == (2, 3, 1, 1) and mean.dtype == dtype
    exact = x.double().mean((2, 3), keepdim=True)
    assert torch.allclose(mean.double(), exact, rtol=torch.finfo(dtype).eps)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_roi_features_of_half_precision_maps(dtype):
    """Pooled in float32: mmcv has no bfloat16, and coordinates need their digits."""
    extractor = AdaptiveRoIExtractor(
        dict(type='RoIAlign', output_size=14, sampling_ratio=0), 4, [8, 16, 32]
    )
    maps = [torch.rand(1, 4, 2000 // s, 2000 // s).to(dtype) for s in (8, 16, 32)]
    # 1801.3 is 1808 in bfloat16 and 1801 in float16.
    rois = torch.tensor([[0, 1801.3, 1700.7, 1900.6, 1799.2]])
    out = extractor(maps, rois, image_areas=torch.tensor([4e6]))
    level = int(extractor.roi_levels(maps, rois, torch.tensor([4e6]))) - 3
    oracle = RoIAlign(14, spatial_scale=1 / (8 * 2**level), sampling_ratio=0)
    expected = oracle(maps[level].float(), rois)
    assert out.dtype == dtype
    assert torch.equal(out, expected.to(dtype))


def test_deformable_block_works_under_autocast():
    torch.manual_seed(0)
    block = OSABlock(
        16, 16, 16, 2, conv_cfg=dict(type='DCNv2'), norm_cfg=dict(type='BN')
    )
    x = torch.rand(1, 16, 16, 16)
    plain = block(x)
    with autocast():
        out = block(x)
    assert (out.float() - plain).abs().max() < 0.02 * plain.abs().max()


@pytest.mark.parametrize('seed', [0, 1])
def test_losses_are_those_of_float32_on_the_same_outputs(monkeypatch, seed):
    """The network rounds, the losses do not: seen by calling them again outside."""
    model = talkative(tiny_model(), seed=seed).train()
    seen = {}

    def record(module, name):
        method = getattr(module, name)

        def recorded(*args):
            result = method(*args)
            # The detector adds to the losses it is given.
            seen[name] = (args, dict(result) if isinstance(result, dict) else result)
            return result

        monkeypatch.setattr(module, name, recorded)
        return method

    box_loss = record(model.bbox_head, 'loss_by_feat')
    mask_loss = record(model.roi_head.mask_head, 'loss_and_target')
    iou_targets = record(model.roi_head.mask_iou_head, 'get_targets')
    with autocast():
        losses = model(
            *batch_of(model, picture(boxes=TWO_OBJECTS), training=True), mode='loss'
        )
    assert all(value.dtype == torch.float32 for value in losses.values())
    args, result = seen['loss_by_feat']
    again = box_loss(*args)
    assert again.keys() == result.keys()
    assert all(torch.equal(again[key], result[key]) for key in again)
    assert all(m.dtype == torch.float32 for maps in args[:3] for m in maps)
    args, result = seen['loss_and_target']
    assert args[0].dtype == torch.float32
    again = mask_loss(*args)['loss_mask']['loss_mask']
    assert torch.equal(again, result['loss_mask']['loss_mask'])
    args, result = seen['get_targets']
    assert torch.equal(iou_targets(*args), result)


def test_focal_loss_would_overflow():
    """Why: sure of the wrong class in 20,000 locations, as a bad step may leave it."""
    focal = MODELS.build(dict(type='FocalLoss', use_sigmoid=True))
    logits = torch.full((20_000, 3), 5.0)
    labels = torch.full((20_000,), 3)
    # 0.75 * sigmoid(5)^2 * log(1 + e^5) in each of 60,000 places.
    expected = 60_000 * 0.75 * 0.9933071**2 * 5.0067153 / 40
    assert focal(logits, labels, avg_factor=40).item() == pytest.approx(expected)
    assert focal(logits.half(), labels, avg_factor=40).isinf()


def test_step_under_autocast_is_near_float32():
    """Losses within 2 %, gradients in the direction of those of float32."""
    results = []
    for enabled in (False, True):
        model = talkative(tiny_model()).train()
        # 64 pixels wide, P6 is a map of width 1.
        widen_narrow_maps(model)
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=enabled):
            losses = model(
                *batch_of(model, picture(boxes=TWO_OBJECTS), training=True),
                mode='loss',
            )
        total(losses).backward()
        grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        results.append((total(losses).item(), torch.cat(grads).double()))
    (plain, plain_grad), (mixed, mixed_grad) = results
    assert mixed == pytest.approx(plain, rel=0.02)
    assert mixed != plain
    assert F.cosine_similarity(plain_grad, mixed_grad, dim=0) > 0.95


@pytest.mark.parametrize(
    'arguments, expected',
    [
        (dict(kernel_size=3, stride=2, padding=1), True),
        (dict(kernel_size=7, stride=2, padding=3), True),
        (dict(kernel_size=3, stride=1, padding=1), False),
        (dict(kernel_size=1, stride=2), True),
        # One column gives one output, two give two.
        (dict(kernel_size=4, stride=2, padding=2), False),
        (dict(kernel_size=3, stride=1, padding='same'), False),
    ],
)
def test_which_convolutions_can_be_given_a_column(arguments, expected):
    conv = nn.Conv2d(1, 1, **arguments)
    assert ignores_second_column(conv) is expected
    if conv.stride[1] > 1:
        widths = [conv(torch.rand(1, 1, 8, width)).shape[-1] for width in (1, 2)]
        assert (widths[0] == widths[1]) is expected


def test_gradient_of_a_strided_convolution_over_one_column():
    """bfloat16 on a CPU: without care it holds what lay in memory before."""
    torch.manual_seed(0)
    conv = nn.Conv2d(32, 32, 3, stride=2, padding=1)
    x = torch.rand(2, 32, 4, 1)
    plain = conv(x)
    plain.sum().backward()
    expected = conv.weight.grad.clone()
    widen_narrow_maps(conv)
    for _ in range(5):
        litter = [torch.full_like(conv.weight, 1e20, dtype=t) for t in TYPES]
        del litter
        conv.weight.grad = None
        with autocast():
            out = conv(x)
        out.float().sum().backward()
        assert torch.allclose(out.float(), plain, atol=0.02)
        assert torch.allclose(conv.weight.grad, expected, rtol=0.02, atol=0.05)
    # Out of autocast nothing is added.
    assert torch.equal(conv(x), plain)
