"""Two thousand pictures of differing sizes, and memory stays where it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from tiny_centermask import talkative, tiny_model

from mmdet_centermask import optimize
from mmdet_centermask.benchmark.new_process import in_new_process
from mmdet_centermask.invariance import predict

STATM = Path('/proc/self/statm')
INFERENCES, WARM_UP = 2000, 1000


def resident_megabytes() -> float:
    pages = int(STATM.read_text().split()[1])
    return pages * 4096 / 2**20


def megabytes_after_each(fast: bool) -> list[float]:
    """Memory of this process after each inference."""
    model = talkative(tiny_model(test_cfg__bbox__max_per_img=5)).eval()
    if fast:
        model = optimize(model)
    rng = np.random.default_rng(0)
    measured = []
    for _ in range(INFERENCES):
        height, width = map(int, rng.integers(8, 65, 2))
        pixels = rng.integers(0, 256, (3, height, width)).astype(np.uint8)
        size = (height, width)
        sample = DetDataSample(
            metainfo=dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0))
        )
        picture = dict(inputs=torch.from_numpy(pixels), data_samples=sample)
        (found,) = predict(model, picture)
        assert found.masks.shape[1:] == size
        measured.append(resident_megabytes())
    return measured


@pytest.mark.slow
@pytest.mark.skipif(not STATM.exists(), reason='reads memory from /proc, as on Linux')
@pytest.mark.parametrize('fast', [False, True], ids=['default', 'fast'])
def test_memory_does_not_grow(fast, capsys):
    """How much there is at the start and at the end is printed."""
    late = in_new_process(megabytes_after_each, fast)[WARM_UP:]
    with capsys.disabled():
        print(
            f'\n{WARM_UP} inferences: {late[0]:.0f} MB, {INFERENCES}: {late[-1]:.0f} MB'
        )
    slope, _ = np.polyfit(np.arange(len(late)), late, 1)
    # A leak of one mask of 64 x 64 in each inference would be 0.004 MB.
    assert slope < 0.001, f'{slope:.5f} MB an inference, {late[0]} to {late[-1]} MB'
