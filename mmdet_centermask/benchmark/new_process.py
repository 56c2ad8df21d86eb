"""Work in a process of its own: with its own threads, and nothing left in memory."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import torch

Result = TypeVar('Result')


class OwnProcess:
    """A process that runs what it is given, one after the other, until closed."""

    def __init__(self) -> None:
        context = get_context('spawn')  # nothing is inherited but the environment
        self._pool = ProcessPoolExecutor(1, mp_context=context)

    def run(self, function: Callable[..., Result], *args: Any) -> Result:
        """What ``function`` of a module returns; its exceptions are raised here.

        Raises:
            concurrent.futures.BrokenExecutor: The process was killed.
        """
        return self._pool.submit(function, *args).result()

    def close(self) -> None:
        self._pool.shutdown()


def in_new_process(function: Callable[..., Result], *args: Any) -> Result:
    """:meth:`OwnProcess.run` in a process for this call alone."""
    with closing(OwnProcess()) as process:
        return process.run(function, *args)


def one_line(error: BaseException) -> str:
    """What went wrong, short enough for a table."""
    text = ' '.join(str(error).split())
    return f'{type(error).__name__}: {text}'[:200]


def peak_memory_mb() -> float | None:
    """Most memory that this process has held: of the GPU where there is one, else of
    the machine, libraries included; None where the system does not tell."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return peak_resident_mb()


def peak_resident_mb() -> float | None:
    """The same of the machine's memory, whether there is a GPU or not."""
    # Not getrusage: its peak counts the process that started this one.
    status = Path('/proc/self/status')
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith('VmHWM:'):
            return int(line.split()[1]) / 2**10
    return None
