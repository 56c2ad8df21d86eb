"""What a number was measured on."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import torch

VERSIONS = ('torch', 'mmcv', 'mmengine', 'mmdet')
# What decides how fast a convolution can be.
UNITS = ('avx2', 'avx512f', 'avx512_bf16', 'amx_bf16')


def hardware() -> dict[str, str | int]:
    """Processor, threads, GPU where there is one, and the libraries' versions."""
    found: dict[str, str | int] = dict(
        cpu=cpu_name(),
        units=' '.join(unit for unit in UNITS if unit in cpu_flags()),
        cores=len(os.sched_getaffinity(0)),
        threads=torch.get_num_threads(),
    )
    if torch.cuda.is_available():
        found['gpu'] = torch.cuda.get_device_name()
    found['python'] = platform.python_version()
    return found | {name: metadata.version(name) for name in VERSIONS}


def cpu_name() -> str:
    return cpu_field('model name') or platform.processor() or platform.machine()


def cpu_flags() -> set[str]:
    return set(cpu_field('flags').split())


def cpu_field(name: str) -> str:
    """A field of the first processor as Linux lists it, empty elsewhere."""
    listing = Path('/proc/cpuinfo')
    for line in listing.read_text().splitlines() if listing.exists() else ():
        key, _, value = line.partition(':')
        if key.strip() == name:
            return value.strip()
    return ''
