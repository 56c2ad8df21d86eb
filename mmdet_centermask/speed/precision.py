"""Which number format a device computes fastest in without losing the answer."""

from __future__ import annotations

from typing import NamedTuple

import torch

DTYPES = {
    'float32': torch.float32,
    'bfloat16': torch.bfloat16,
    'float16': torch.float16,
}


class Precision(NamedTuple):
    """A number format, and why it was taken."""

    dtype: torch.dtype
    reason: str


def choose_precision(device: torch.device, wanted: str = 'auto') -> Precision:
    """The format that convolutions on ``device`` should run in.

    Args:
        device: Where the detector is.
        wanted: ``'auto'`` takes bfloat16 where the hardware multiplies it, float16
            on GPUs that only have that, else float32. A name of :data:`DTYPES`
            takes that.

    Raises:
        ValueError: ``wanted`` is unknown, or the device cannot compute in it.
    """
    if wanted not in ('auto', *DTYPES):
        raise ValueError(
            f"precision={wanted!r} is unknown, choose 'auto' or one of "
            f'{", ".join(DTYPES)}'
        )
    if wanted == 'float16' and device.type == 'cpu':
        raise ValueError(
            "precision='float16': PyTorch's CPU convolutions are slow in it; "
            "choose 'bfloat16', or 'auto' to have it only where it is fast"
        )
    if wanted != 'auto':
        return Precision(DTYPES[wanted], 'as asked')
    if device.type == 'cpu':
        return cpu_precision()
    if device.type == 'cuda':
        return gpu_precision(torch.cuda.get_device_capability(device))
    return Precision(torch.float32, f'nothing faster is known for {device.type}')


def cpu_precision() -> Precision:
    """bfloat16 on CPUs with units for it; emulating it would be slower."""
    has = {name: _cpu_has(name) for name in ('amx_tile', 'avx512_bf16')}
    if has['amx_tile']:
        return Precision(torch.bfloat16, 'the CPU has AMX')
    if has['avx512_bf16']:
        return Precision(torch.bfloat16, 'the CPU has AVX512-BF16')
    return Precision(torch.float32, 'the CPU has no bfloat16 units')


def gpu_precision(capability: tuple[int, int]) -> Precision:
    """By CUDA compute capability: tensor cores for bfloat16 came with 8.0 (Ampere)."""
    version = '.'.join(map(str, capability))
    if capability >= (8, 0):
        return Precision(torch.bfloat16, f'CUDA capability {version}')
    # 6.1 multiplies float16 64 times slower than float32, all others faster.
    if capability >= (5, 3) and capability != (6, 1):
        return Precision(torch.float16, f'CUDA capability {version} is below 8.0')
    return Precision(torch.float32, f'CUDA capability {version} has no fast float16')


def _cpu_has(feature: str) -> bool:
    # Private in torch, and younger than the oldest torch this package runs on.
    query = getattr(torch.cpu, f'_is_{feature}_supported', None)
    return bool(query and query())
