"""The few changes to the numbers themselves, each exact and each a pure function.

Every function returns new tensors with storage of their own: a view would drag the
whole old tensor into the saved file.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

BN_EPS = 1e-5
# ImageNet's usual statistics on the 0..255 scale, in the order R, G, B.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


def without_eps(running_var: Tensor) -> Tensor:
    """Variance for a norm that adds `BN_EPS`, from one that adds nothing.

    The result may be negative where the variance is below eps; the sum with eps,
    the only number that is used, is not.
    """
    return running_var - BN_EPS


def without_first_row(tensor: Tensor) -> Tensor:
    """Drop the background, which CenterMask v1 counts as class 0."""
    return tensor[1:].clone()


def first_row_last(tensor: Tensor) -> Tensor:
    """Move the row `things` of a semantic head behind the stuff classes."""
    return torch.cat([tensor[1:], tensor[:1]])


def as_scalar(tensor: Tensor) -> Tensor:
    """Shape `(1,)` to `()`, which is how mmcv's `Scale` keeps its number."""
    return tensor.reshape(()).clone() if tensor.numel() == 1 else tensor


def select_rows(tensor: Tensor, rows: Sequence[int]) -> Tensor:
    """Rows of `tensor` in the order asked for."""
    return tensor[list(rows)]


def fold_rgb(weight: Tensor, std: Sequence[float] = IMAGENET_STD) -> Tensor:
    """First conv for BGR pixels of std 1, from one for RGB pixels of `std`.

    Exact if the mean that is subtracted stays the same colour by colour: padding
    is added after that, so a mean folded into a bias would be wrong at the border.
    """
    divisor = torch.tensor(std, dtype=torch.float64).reshape(1, 3, 1, 1)
    return (weight.double() / divisor).flip(1).to(weight.dtype)
