"""Stand-in weights: fixed pseudo-random numbers for any parameter of the reference.

They depend on the parameter's official name and shape alone, so that a checkpoint
the reference was run with can be made again from its list of names and shapes.
Spreads are chosen such that maps neither vanish nor explode and some fifty boxes
pass the score threshold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

# What a bias is drawn around, by the name of its layer; others are drawn around 0.
BIASES = ((r'cls_logits', -5.3), (r'bbox_pred', 2.0), (r'maskiou\.bias$', 0.6))
# The spread of an output layer, before it is divided by the root of the fan-in.
OUTPUTS = (
    (r'maskiou\.weight$', 0.2),
    (r'cls_logits|bbox_pred|ctrness|predictor', 1.0),
)
PIXELS = {'pixel_mean': (103.53, 116.28, 123.675), 'pixel_std': (1.0, 1.0, 1.0)}
LAST_NORM_OF_RESIDUAL = re.compile(r'\.res\d\..*conv3\.norm')


def stand_in_state(manifest: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Tensors for every name and shape of `manifest`."""
    return {
        name: torch.from_numpy(np.asarray(stand_in(name, tuple(shape))))
        for name, shape in manifest.items()
    }


def stand_in(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The array for the parameter `name`; float32, but counters are int64."""
    random = np.random.RandomState(crc32(name.encode()))
    # Drawn whether it is used or not: the second draw below depends on it.
    noise = random.standard_normal(shape).astype(np.float32)
    kind = name.rsplit('.', 1)[-1]
    if kind in PIXELS:
        return np.array(PIXELS[kind], np.float32).reshape(shape)
    if kind == 'num_batches_tracked':
        return np.zeros(shape, np.int64)
    if kind == 'running_mean':
        return 0.1 * noise
    if kind == 'running_var':
        return (0.5 + random.uniform(size=shape)).astype(np.float32)
    if kind == 'scale':
        return 1 + 0.1 * noise
    if kind == 'bias':
        return _bias(name, noise)
    if len(shape) == 1:
        calm = 0.1 if LAST_NORM_OF_RESIDUAL.search(name) else 1
        return (calm * (1 + 0.1 * noise)).astype(np.float32)
    return _weight(name, noise)


def _bias(name: str, noise: np.ndarray) -> np.ndarray:
    for pattern, centre in BIASES:
        if re.search(pattern, name):
            return centre + 0.1 * noise
    return 0.05 * noise


def _weight(name: str, noise: np.ndarray) -> np.ndarray:
    """Noise of a spread that what passes through keeps (He); less for outputs."""
    if 'conv_offset' in name:
        return 0.02 * noise
    fan_in = int(np.prod(noise.shape[1:]))
    gain = np.sqrt(2.0 / fan_in)
    for pattern, spread in OUTPUTS:
        if re.search(pattern, name):
            gain = spread / np.sqrt(fan_in)
            break
    if noise.shape[1] == 3:
        gain /= 60.0  # the first conv sees pixels, whose spread is about 60
    return (gain * noise).astype(np.float32)
