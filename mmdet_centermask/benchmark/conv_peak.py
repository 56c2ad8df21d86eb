"""What this machine's convolutions can do at best, in this very run.

Absolute speeds wander with heat, neighbours and clock rates; a share of the peak that
the same run has measured does not.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .timing import take_turns

# Channels, height and width of 3x3 convs as they occur in detectors, large enough to
# keep every unit busy.
SHAPES = ((128, 100, 136), (256, 100, 136), (256, 200, 272), (512, 50, 68))


def conv_peaks(device: torch.device, rounds: int = 5) -> dict[str, float]:
    """Best multiply-adds per second of a 3x3 conv in channels-last, by dtype."""
    half = torch.float16 if device.type == 'cuda' else torch.bfloat16
    dtypes = dict.fromkeys((torch.float32, torch.bfloat16, half))
    return {
        str(dtype).removeprefix('torch.'): max(
            conv_speed(shape, dtype, device, rounds) for shape in SHAPES
        )
        for dtype in dtypes
    }


@torch.no_grad()
def conv_speed(
    shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device, rounds: int
) -> float:
    """Multiply-adds per second of a 3x3 conv that keeps ``(C, H, W)``, its best of
    ``rounds``."""
    channels, height, width = shape
    x = torch.ones(1, channels, height, width, dtype=dtype, device=device)
    weight = torch.ones(channels, channels, 3, 3, dtype=dtype, device=device)
    x, weight = (t.to(memory_format=torch.channels_last) for t in (x, weight))
    calls = dict(conv=lambda: F.conv2d(x, weight, padding=1))
    return 9 * channels**2 * height * width / min(take_turns(calls, rounds)['conv'])
