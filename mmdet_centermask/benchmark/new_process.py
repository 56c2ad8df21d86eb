"""Work in a process of its own: with its own threads, and nothing left in memory."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import torch

Result = TypeVar('Result')


def in_new_process(function: Callable[..., Result], *args: Any) -> Result:
    """What ``function`` of a module returns; its exceptions are raised here.

    Raises:
        concurrent.futures.BrokenExecutor: The process was killed.
    """
    context = get_context('spawn')  # nothing is inherited but the environment
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args).result()


def one_line(error: BaseException) -> str:
    """What went wrong, short enough for a table."""
    text = ' '.join(str(error).split())
    return f'{type(error).__name__}: {text}'[:200]


def peak_memory_mb() -> float | None:
    """Most memory that this process has held: of the GPU where there is one, else of
    the machine, libraries included; None where the system does not tell."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path('/proc/self/status')
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith('VmHWM:'):
            return int(line.split()[1]) / 2**10
    return None
