"""Two ways to train in turns: a table by hand, and tiny detectors for real."""

from __future__ import annotations

from copy import deepcopy

import pytest
from mmengine.config import Config
from tiny_run import write_config, write_data

from mmdet_centermask.benchmark.training import Curve, compare_training, describe


def test_table_by_hand():
    curves = dict(
        float32=Curve([4.0, 3.0, 2.0], [0.3, 0.1, 0.2]),
        bfloat16=Curve([4.0, 3.5, 1.5], [0.05, 0.15, 0.1]),
    )
    assert [line.split() for line in describe(curves).splitlines()] == [
        ['step', 'median', 's', 'quartiles', 'ratio'],
        ['float32', '0.200', '0.100', '..', '0.300', '1.00x'],
        ['bfloat16', '0.100', '0.050', '..', '0.150', '2.00x'],
        [],
        ['mean', 'loss', 'of', 'iterations', 'float32', 'bfloat16'],
        ['1', 'to', '3', '3.0000', '3.0000'],
    ]


@pytest.mark.slow
def test_sides_differ_by_what_their_configs_say(tmp_path):
    """Same weights, batches and random numbers; here the step alone is another."""
    plain = Config.fromfile(write_config(tmp_path / 'a.py', write_data(tmp_path / 'd')))
    still = deepcopy(plain)
    still.optim_wrapper.optimizer.lr = 0.0
    still.param_scheduler = []
    curves = compare_training(dict(plain=plain, still=still), iterations=3, threads=1)
    first, *later = zip(*(curve.losses for curve in curves.values()), strict=True)
    assert first[0] == first[1] > 0
    assert all(a != b for a, b in later[1:])
    assert all(s > 0 for curve in curves.values() for s in curve.seconds)
