"""Do the pixels fit mean and std of the preprocessor?

Two conventions are in use: a std of 1, which leaves pixels in 0..255 around 0, and a
real std, which brings them to about 1. A unit mixed up (0..1 and 0..255, 8 and 16
bits) misses both by far; a dark data set does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

STEP = 4  # every fourth pixel of every fourth row is enough
# Limits of |mean| and of std after normalisation. With a std of 1 they are those of
# 8-bit pixels; photographs have about 20 and 60, dark microscopy 120 and 5.
UNSCALED = (128.0, (1.0, 128.0))
SCALED = (4.0, (0.05, 6.0))


def pixel_statistics(pictures: Sequence[Tensor]) -> tuple[list[float], list[float]]:
    """Mean and std of each channel over pictures (C, H, W), before normalisation."""
    samples = [picture[:, ::STEP, ::STEP].flatten(1).double() for picture in pictures]
    pixels = torch.cat(samples, dim=1)
    return pixels.mean(1).tolist(), pixels.std(1, correction=0).tolist()


def pixel_problem(
    found_mean: Sequence[float],
    found_std: Sequence[float],
    mean: Sequence[float],
    std: Sequence[float],
) -> str | None:
    """Say in plain words what does not fit, or None.

    Args:
        found_mean: Of the pixels, a channel each.
        found_std: The same.
        mean: Of the preprocessor.
        std: The same.
    """
    centre, spread = SCALED if any(s != 1 for s in std) else UNSCALED
    pairs = list(zip(found_mean, found_std, mean, std, strict=True))
    shifted = any(abs(fm - m) / s > centre for fm, _, m, s in pairs)
    # A flat picture says nothing about the spread.
    stretched = any(not spread[0] < fs / s < spread[1] for _, fs, _, s in pairs if fs)
    in_shares = 0 < max(mean) <= 1 < max(found_mean)
    if not (shifted or stretched or in_shares):
        return None
    after = [f'{(fm - m) / s:.3g} +- {fs / s:.3g}' for fm, fs, m, s in pairs]
    return (
        f'pixels of the first batch are {numbers(found_mean)} +- {numbers(found_std)}; '
        f'mean={numbers(mean)} and std={numbers(std)} of data_preprocessor turn them '
        f'into {", ".join(after)}, where about 0 +- 1 is usual (0 +- 60 with a std of '
        '1): are both in the units of the pixels?'
    )


def numbers(values: Sequence[float]) -> str:
    return f'[{", ".join(f"{value:.3g}" for value in values)}]'


def raw_pictures(data_batch: Any) -> list[Tensor]:
    """The pictures of a batch as the loader gives it; empty for other forms."""
    inputs = data_batch.get('inputs') if isinstance(data_batch, dict) else None
    if isinstance(inputs, Tensor):
        inputs = list(inputs)
    if not isinstance(inputs, list):
        return []
    return [p for p in inputs if isinstance(p, Tensor) and p.dim() == 3 and p.numel()]
