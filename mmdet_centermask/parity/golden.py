"""Goldens as files: the reference's arrays, whole or every n-th number of them.

In a thin golden a large array `NAME` is kept as `NAME@n`: every n-th number of it in
row-major order. `n` shares no factor with the array's size, so that no row, column or
channel is left out.

`python -m mmdet_centermask.parity.golden FULL.npz THIN.npz` writes a thin one.
"""

from __future__ import annotations

import sys
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np

KEPT = 1000  # numbers of an array, about


def load_golden(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of a golden by name.

    Raises:
        ValueError: The file holds no case `a` or `b` and no training step.
    """
    with np.load(path) as file:
        golden = {name: file[name] for name in file.files}
    if not any(name.startswith(('a/', 'b/', 'train/')) for name in golden):
        raise ValueError(f'{path}: not a golden (it has no names such as a/boxes)')
    return golden


def split_name(name: str) -> tuple[str, int]:
    """`'a/fpn/p3@47'` -> `('a/fpn/p3', 47)`; the step of a whole array is 1."""
    name, _, step = name.partition('@')
    return name, int(step or 1)


def thin(golden: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The golden with about `KEPT` numbers of each large map.

    Masks are kept whole: as bits they pack to a few kilobytes.
    """
    thinned = {}
    for name, array in golden.items():
        step = array.size // KEPT
        if step <= 1 or array.dtype.kind != 'f':
            thinned[name] = array
            continue
        while gcd(step, array.size) != 1:
            step += 1
        thinned[f'{name}@{step}'] = array.ravel()[::step]
    return thinned


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(f'usage: python -m {__spec__.name} FULL.npz THIN.npz')
    arrays: dict[str, Any] = dict(thin(load_golden(sys.argv[1])))
    np.savez_compressed(sys.argv[2], **arrays)


if __name__ == '__main__':
    main()
