"""Which number format is chosen on which device: a truth table."""

import pytest
import torch

from mmdet_centermask.speed import precision
from mmdet_centermask.speed.precision import choose_precision, gpu_precision

CPU = torch.device('cpu')


@pytest.mark.parametrize(
    ('units', 'dtype'),
    [
        ({'amx_tile', 'avx512_bf16'}, torch.bfloat16),
        ({'amx_tile'}, torch.bfloat16),
        ({'avx512_bf16'}, torch.bfloat16),
        (set(), torch.float32),
    ],
)
def test_cpu(monkeypatch, units, dtype):
    monkeypatch.setattr(precision, '_cpu_has', lambda feature: feature in units)
    assert choose_precision(CPU).dtype == dtype


@pytest.mark.parametrize(
    ('capability', 'dtype'),
    [
        ((5, 2), torch.float32),
        ((6, 0), torch.float16),
        ((6, 1), torch.float32),
        ((7, 0), torch.float16),
        ((7, 5), torch.float16),
        ((8, 0), torch.bfloat16),
        ((9, 0), torch.bfloat16),
    ],
)
def test_gpu(capability, dtype):
    assert gpu_precision(capability).dtype == dtype


def test_what_is_asked_for_is_taken():
    assert choose_precision(CPU, 'bfloat16') == (torch.bfloat16, 'as asked')
    assert choose_precision(CPU, 'float32') == (torch.float32, 'as asked')


@pytest.mark.parametrize(
    ('wanted', 'message'),
    [
        ('int8', r"precision='int8' is unknown, choose 'auto' or one of float32,"),
        ('float16', r"precision='float16': PyTorch's CPU convolutions are slow"),
    ],
)
def test_refusals(wanted, message):
    with pytest.raises(ValueError, match=message):
        choose_precision(CPU, wanted)


def test_a_torch_that_cannot_be_asked_counts_as_without(monkeypatch):
    for feature in ('amx_tile', 'avx512_bf16'):
        monkeypatch.delattr(torch.cpu, f'_is_{feature}_supported', raising=False)
    assert choose_precision(CPU).dtype == torch.float32
