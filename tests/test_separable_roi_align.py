"""RoIAlign by matrix products: against mmcv's operator, and a bin by hand."""

import pytest
import torch
from mmcv.ops import RoIAlign

from mmdet_centermask.speed.separable_roi_align import (
    axis_weights,
    separable_roi_align,
)


def rois_of_all_kinds() -> torch.Tensor:
    """Inside, over each border, far outside, without area, thin, the whole map."""
    boxes = torch.tensor(
        [
            [10.0, 20.0, 60.0, 50.0],
            [-30.0, -40.0, 25.0, 35.0],
            [100.0, 70.0, 300.0, 260.0],
            [500.0, 500.0, 600.0, 600.0],
            [-90.0, -90.0, -50.0, -50.0],
            [40.0, 40.0, 40.0, 40.0],
            [5.3, 6.1, 5.9, 90.7],
            [-10.0, -10.0, 140.0, 110.0],
            [127.9, 95.9, 128.1, 96.1],
        ]
    )
    numbers = torch.arange(len(boxes)).fmod(2).float()
    return torch.cat([numbers[:, None], boxes], dim=1)


@pytest.mark.parametrize('sampling_ratio', [0, 2])
@pytest.mark.parametrize('output_size', [(14, 14), (3, 5)])
def test_gives_what_mmcv_gives_and_its_gradient(output_size, sampling_ratio):
    generator = torch.Generator().manual_seed(0)
    feat = torch.randn(2, 6, 12, 16, generator=generator, requires_grad=True)
    rois = rois_of_all_kinds()
    expected = RoIAlign(output_size, 1 / 8, sampling_ratio)(feat, rois)
    pooled = separable_roi_align(feat, rois, output_size, 1 / 8, sampling_ratio)
    torch.testing.assert_close(pooled, expected, rtol=1e-5, atol=1e-5)
    weights = torch.randn(expected.shape, generator=generator)
    (wanted,) = torch.autograd.grad(expected, feat, weights)
    (found,) = torch.autograd.grad(pooled, feat, weights)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_bfloat16_stays_within_its_steps():
    feat = torch.randn(2, 6, 12, 16, generator=torch.Generator().manual_seed(0))
    rois = rois_of_all_kinds()
    exact = separable_roi_align(feat, rois, (14, 14), 1 / 8, 0)
    short = separable_roi_align(feat.bfloat16(), rois, (14, 14), 1 / 8, 0)
    assert short.dtype == torch.bfloat16
    # Eight bits, rounded at the map, the weights, and after each product.
    assert (short.float() - exact).abs().max() < 4 * 2**-8 * feat.abs().max()


def test_types_are_its_own_under_autocast():
    feat = torch.randn(2, 6, 12, 16, generator=torch.Generator().manual_seed(0))
    exact = separable_roi_align(feat, rois_of_all_kinds(), (14, 14), 1 / 8, 0)
    with torch.autocast('cpu'):
        again = separable_roi_align(feat, rois_of_all_kinds(), (14, 14), 1 / 8, 0)
    assert torch.equal(again, exact)


def test_no_rois():
    feat = torch.zeros(1, 3, 8, 8)
    assert separable_roi_align(feat, torch.zeros(0, 5), (14, 14), 0.1, 0).shape == (
        0,
        3,
        14,
        14,
    )


def test_weights_of_one_axis_by_hand():
    # Two bins of 1.5 pixels from 0.25 on. Two samples a bin (1.5 begins two pixels):
    # at 0.625, 1.375 and at 2.125, 2.875; each counts a half.
    weights = axis_weights(torch.tensor([0.25]), torch.tensor([3.0]), 2, 4, 0)
    expected = torch.tensor(
        [
            [0.375 / 2, (0.625 + 0.625) / 2, 0.375 / 2, 0],
            [0, 0, (0.875 + 0.125) / 2, (0.125 + 0.875) / 2],
        ]
    )
    torch.testing.assert_close(weights[0], expected)


def test_weights_at_the_borders_by_hand():
    # One bin, one sample: within a pixel of the map it is held at the edge, beyond
    # that it is zero.
    starts = torch.tensor([-1.4, -1.6, 3.4, 3.6])
    weights = axis_weights(starts, torch.ones(4), 1, 4, 1)[:, 0]
    first, last, nothing = [1.0, 0, 0, 0], [0, 0, 0, 1.0], [0.0] * 4
    torch.testing.assert_close(weights, torch.tensor([first, nothing, last, nothing]))
