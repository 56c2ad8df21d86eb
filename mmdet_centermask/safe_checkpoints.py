"""Let `torch.load(weights_only=True)` read the checkpoints that mmengine writes.

Since torch 2.6 that is the default, and mmengine 0.10.7 relies on the default. Its
checkpoints hold more than tensors: the message hub keeps numbers as NumPy arrays
and scalars in `HistoryBuffer` objects. Without this list neither `--resume` nor
`mim test` can open a file that `mim train` wrote.

What gets in is data only. `HistoryBuffer` also pickles four of its own methods, as
calls of the builtin `getattr`; allowing that function would open every attribute
of every allowed object to the file, so a stand-in answers under its name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from .environment import torch_release

HISTORY_STATISTICS = ('min', 'max', 'mean', 'current')
NUMBER_TYPES = ('bool', 'int32', 'int64', 'float32', 'float64')


def allow_mmengine_checkpoints() -> None:
    """Add the contents of mmengine's checkpoints to torch's list of safe globals."""
    if torch_release() >= (2, 6):
        torch.serialization.add_safe_globals(mmengine_globals())


def mmengine_globals() -> list[Any]:
    """Return the classes, and the (function, name in the file) pairs, to allow."""
    return [
        HistoryBuffer,
        (history_statistic, 'builtins.getattr'),
        np.ndarray,
        np.dtype,
        *[type(np.dtype(name)) for name in NUMBER_TYPES],
        *numpy_rebuilders(),
    ]


def numpy_rebuilders() -> list[tuple[Any, str]]:
    """Return NumPy's two unpickling functions under their old and new module.

    The functions are taken from NumPy's own pickles: their module has moved, and
    a file written with NumPy 1 still names the old one.
    """
    rebuild_array = np.empty(0).__reduce__()[0]
    rebuild_scalar = np.float64(0).__reduce__()[0]
    pairs: list[tuple[Any, str]] = []
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        pairs.append((rebuild_array, f'{module}._reconstruct'))
        pairs.append((rebuild_scalar, f'{module}.scalar'))
    return pairs


def history_statistic(owner: type, name: str) -> Callable:
    """Return the statistics method `name` of HistoryBuffer, and nothing else."""
    if owner is not HistoryBuffer or name not in HISTORY_STATISTICS:
        raise ValueError(
            f'the checkpoint asks for attribute {name!r} of {owner!r}; '
            f'only {HISTORY_STATISTICS} of HistoryBuffer are allowed'
        )
    return getattr(HistoryBuffer, name)
