"""Checkpoints are data: whatever a file asks for, reading it runs nothing.

A checkpoint is a pickle, and a pickle is a program. `torch.load(weights_only=True)`
builds tensors and what it is told to allow, but MMEngine does not always ask for it:
releases before torch 2.6 have another default, files from the web come through
`torch.hub`, whose default is the unsafe one to this day, and the maintained fork
falls back to the unsafe way where the safe one fails. `make_checkpoints_safe` puts
`load_data` in all those places.

Allowed is what MMEngine's own checkpoints hold beside tensors: numbers as NumPy
arrays and scalars in `HistoryBuffer` objects. `HistoryBuffer` also pickles four of
its own methods, as calls of the builtin `getattr`; allowing that function would open
every attribute of every allowed object to the file, so a stand-in answers under its
name.
"""

from __future__ import annotations

import functools
import io
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import checkpoint as mmengine_checkpoint

from .environment import torch_release

HISTORY_STATISTICS = ('min', 'max', 'mean', 'current')
NUMBER_TYPES = ('bool', 'uint8', 'uint32', 'int32', 'int64', 'float32', 'float64')
# From here on `weights_only` can be told what else to allow, name by name.
FIRST_TORCH_WITH_ALLOW_LIST = (2, 6)


class CheckpointError(ValueError):
    """A checkpoint that cannot be read; one sentence that says why."""


def make_checkpoints_safe() -> None:
    """Have MMEngine read checkpoints with `load_data`, wherever they come from."""
    allow_mmengine_checkpoints()
    # The module where every path of MMEngine ends: test, resume, load_from,
    # init_cfg, DetInferencer; files, http, torchvision, openmmlab, s3.
    mmengine_checkpoint.torch = TorchReadingData()
    mmengine_checkpoint.load_url = load_url
    mmengine_checkpoint._safe_torch_load = load_data  # of the fork


def allow_mmengine_checkpoints() -> None:
    """Add the contents of MMEngine's checkpoints to torch's list of safe globals."""
    if torch_release() >= FIRST_TORCH_WITH_ALLOW_LIST:
        torch.serialization.add_safe_globals(mmengine_globals())


class TorchReadingData:
    """The module `torch` to one who only looks, but for its `load`."""

    def __getattr__(self, name: str) -> Any:
        return load_data if name == 'load' else getattr(torch, name)


def load_data(source: str | Path | BinaryIO, map_location: Any = None) -> Any:
    """`torch.load` that builds data and runs nothing.

    Args:
        source: A file, by its path or open.
        map_location: As in `torch.load`.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is truncated, damaged or foreign, or its pickle asks for
            more than data.
    """
    try:
        return load_weights_only(source, map_location)
    except OSError:
        raise
    except Exception as error:  # broken bytes raise anything, in every layer
        if 'map_location' in str(error):
            raise  # the file is well, but its device is not here
        name = 'the checkpoint' if isinstance(source, io.IOBase) else str(source)
        raise CheckpointError(f'{name}: {reason_of(error)}') from error


def load_weights_only(
    source: str | Path | BinaryIO, map_location: Any = None, **options: Any
) -> Any:
    """`load_data`, with more options of `torch.load` and raising what that raises."""
    if torch_release() >= FIRST_TORCH_WITH_ALLOW_LIST:
        # Again, because others take entries off the list when they are done.
        allow_mmengine_checkpoints()
        return torch.load(source, map_location, weights_only=True, **options)
    return torch.load(source, map_location, pickle_module=DATA_PICKLE, **options)


def load_url(
    url: str,
    model_dir: str | None = None,
    map_location: Any = None,
    progress: bool = True,
) -> Any:
    """`torch.hub.load_state_dict_from_url` with `load_data`; keeps files in its place.

    Args:
        url: Its last part names the file.
        model_dir: Where files are kept; torch's own folder by default.
        map_location: As in `torch.load`.
        progress: Show a bar while downloading.
    """
    folder = Path(model_dir or Path(torch.hub.get_dir(), 'checkpoints'))
    path = folder / Path(urlparse(url).path).name
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), progress=progress)
    return load_data(path, map_location)


def reason_of(error: Exception) -> str:
    """Say what is wrong with a file whose reading raised `error`."""
    found = None
    if isinstance(error, pickle.UnpicklingError):
        found = re.search(r'(?:GLOBAL|Unsupported class) ([\w.]+\.\w+)', str(error))
    if found:
        return (
            f'refused, because its pickle asks for {found.group(1)} where only tensors '
            'are expected; nothing in it was run'
        )
    # The first sentence, in one line: torch goes on with advice to run the file.
    text = ' '.join(str(error).split())
    reason = text.split('. ')[0] or type(error).__name__
    return f'truncated, damaged or foreign ({reason})'


class DataUnpickler(pickle.Unpickler):
    """Builds containers, numbers, strings and what `allowed` names; refuses all else.

    A pickle acts by naming functions and calling them. Only these names resolve, so
    there is nothing else it could call.
    """

    allowed: Mapping[str, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == '__builtin__':  # its name in the protocol that torch.save uses
            module = 'builtins'
        if f'{module}.{name}' not in self.allowed:
            raise pickle.UnpicklingError(f'GLOBAL {module}.{name} is not allowed')
        return self.allowed[f'{module}.{name}']


class CheckpointUnpickler(DataUnpickler):
    """What `weights_only` allows, and what MMEngine needs; for torch before 2.6."""

    @functools.cached_property
    def allowed(self) -> Mapping[str, Any]:  # type: ignore[override]
        own = dict(map(_named, mmengine_globals()))
        own['_codecs.encode'] = latin1_bytes
        return torch._weights_only_unpickler._get_allowed_globals() | own


def _load_pickle(file: BinaryIO, **options: Any) -> Any:
    return CheckpointUnpickler(file, **options).load()


# All that `torch.load` wants of a `pickle_module`.
DATA_PICKLE = SimpleNamespace(
    __name__=__name__, Unpickler=CheckpointUnpickler, load=_load_pickle
)


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


def _named(entry: Any) -> tuple[str, Any]:
    """(name in the file, object) of an entry of `mmengine_globals`."""
    if isinstance(entry, tuple):
        return entry[1], entry[0]
    return f'{entry.__module__}.{entry.__name__}', entry


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


def latin1_bytes(text: str, encoding: str) -> bytes:
    """Stand-in for `_codecs.encode`, which NumPy uses to carry bytes in a pickle."""
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f'encoding {encoding!r} in an array')
    return text.encode('latin1')


def history_statistic(owner: type, name: str) -> Callable:
    """Return the statistics method `name` of HistoryBuffer, and nothing else."""
    if owner is not HistoryBuffer or name not in HISTORY_STATISTICS:
        raise ValueError(
            f'the checkpoint asks for attribute {name!r} of {owner!r}; '
            f'only {HISTORY_STATISTICS} of HistoryBuffer are allowed'
        )
    return getattr(HistoryBuffer, name)
