"""Numbers that change on the way, against arithmetic done another way."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdet_centermask.convert import transforms


def test_frozen_bn_without_eps():
    """Weight / sqrt(var), as CenterMask v1 has it, out of a norm with eps."""
    norm = nn.BatchNorm2d(4).double().eval()
    var = torch.tensor([4.0, 1.0, 1e-5, 2.5e-7], dtype=torch.float64)
    norm.load_state_dict(
        {
            'weight': torch.tensor([3.0, 1.0, 1.0, 1e-3], dtype=torch.float64),
            'bias': torch.tensor([0.5, 0.0, 0.0, 0.0]),
            'running_mean': torch.tensor([1.0, 0.0, 0.0, 0.0]),
            'running_var': transforms.without_eps(var),
            'num_batches_tracked': torch.tensor(0),
        }
    )
    x = torch.tensor([5.0, 2.0, 1.0, 1.0], dtype=torch.float64).reshape(1, 4, 1, 1)
    # By hand: 3 (5 - 1) / 2 + 0.5; 2 / 1; 1 / sqrt(1e-5); 1e-3 / 5e-4.
    wanted = [6.5, 2.0, 316.2277660168379, 2.0]
    assert norm(x).flatten().tolist() == pytest.approx(wanted, rel=1e-9)


def test_without_first_row():
    tensor = torch.arange(6.0).reshape(3, 2)
    rest = transforms.without_first_row(tensor)
    assert rest.tolist() == [[2.0, 3.0], [4.0, 5.0]]
    assert rest.untyped_storage().nbytes() == 16, 'a view would save the old tensor'


def test_first_row_last():
    rows = transforms.first_row_last(torch.tensor([54.0, 1.0, 2.0]))
    assert rows.tolist() == [1.0, 2.0, 54.0]


def test_as_scalar():
    scale = transforms.as_scalar(torch.tensor([1.25]))
    assert scale.shape == () and scale.item() == 1.25
    assert transforms.as_scalar(torch.zeros(2)).shape == (2,)


def test_fold_rgb():
    """The folded conv on BGR - mean is the conv on (RGB - mean) / std, borders too."""
    torch.manual_seed(0)
    weight = torch.randn(5, 3, 3, 3, dtype=torch.float64)
    rgb = torch.randint(0, 256, (2, 3, 9, 8)).double()
    mean = torch.tensor([123.675, 116.28, 103.53], dtype=torch.float64)
    std = torch.tensor([58.395, 57.12, 57.375], dtype=torch.float64)
    seen = (rgb - mean.reshape(3, 1, 1)) / std.reshape(3, 1, 1)
    wanted = F.conv2d(seen, weight, stride=2, padding=1)
    bgr = torch.stack([rgb[:, 2], rgb[:, 1], rgb[:, 0]], dim=1)
    shifted = bgr - torch.tensor([103.53, 116.28, 123.675]).double().reshape(3, 1, 1)
    folded = F.conv2d(shifted, transforms.fold_rgb(weight), stride=2, padding=1)
    # The config's mean is float32 here, hence not 1e-12.
    torch.testing.assert_close(folded, wanted, rtol=0, atol=1e-6)


def test_fold_rgb_by_hand():
    weight = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1)
    folded = transforms.fold_rgb(weight, std=(2.0, 4.0, 5.0)).flatten()
    assert folded.tolist() == pytest.approx([3 / 5, 2 / 4, 1 / 2])


def test_open_gate_is_the_identity():
    """Weight 0, bias 3 in relu6(fc(x) + 3) / 6: not nearly 1 but 1."""
    from mmdet_centermask.convert.fit import OPEN_GATE
    from mmdet_centermask.models.vovnet import EffectiveSE

    gate = EffectiveSE(3)
    nn.init.constant_(gate.fc.weight, OPEN_GATE['weight'])
    nn.init.constant_(gate.fc.bias, OPEN_GATE['bias'])
    x = torch.randn(2, 3, 5, 4) * 1000
    assert torch.equal(gate(x), x)
