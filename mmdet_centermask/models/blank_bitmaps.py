"""Bitmaps that take memory only where something is written."""

from __future__ import annotations

import math
import mmap

import numpy as np
import torch
from torch import Tensor

TOUCHED = 8  # bytes of a row; one would do, but PyTorch shares out large jobs only


def blank_bitmaps(
    shape: tuple[int, int, int], first: np.ndarray, last: np.ndarray
) -> Tensor:
    """``(n, H, W)`` of False on the CPU, ready for writing to some rows of each.

    ``torch.zeros`` writes every byte. A fresh mapping reads as zeros for nothing; only
    where something is written does the system take a page of memory and clear it,
    which is most of the time that pasting takes. Here the threads of PyTorch ask for
    the pages together. A hundred objects in a picture of 1920 x 1080 are then some
    thirty megabytes of 207.

    Args:
        shape: ``(n, H, W)``.
        first: ``(n,)`` first row that will be written to.
        last: ``(n,)`` row after the last one.
    """
    number, height, width = shape
    if not math.prod(shape):
        return torch.zeros(shape, dtype=torch.bool)
    counts = last - first
    starts = np.arange(number) * height + first - (counts.cumsum() - counts)
    rows = np.repeat(starts, counts) + np.arange(counts.sum())
    memory = mmap.mmap(-1, math.prod(shape), access=mmap.ACCESS_COPY)
    if hasattr(mmap, 'MADV_HUGEPAGE'):
        # A page of 2 MB is cleared faster than 512 small ones, but it is as large as
        # a picture, and one pixel fills it.
        dense = len(rows) > number * height / 4
        memory.madvise(mmap.MADV_HUGEPAGE if dense else mmap.MADV_NOHUGEPAGE)
    lines = torch.frombuffer(memory, dtype=torch.bool).view(-1, width)
    lines[:, :TOUCHED].index_fill_(0, torch.from_numpy(rows), False)
    return lines.view(shape)
