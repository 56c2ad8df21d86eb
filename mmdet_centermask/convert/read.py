"""Read the tensors of a checkpoint without running anything that it contains.

Three containers, told apart by their first bytes and never by the file's name:
what `torch.save` writes (read with `weights_only=True`), a bare pickle of NumPy
arrays (detectron2's `.pkl`), and safetensors. A pickle is a program; the bare ones
pass an unpickler that can build arrays and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..safe_checkpoints import (
    DataUnpickler,
    latin1_bytes,
    load_weights_only,
    numpy_rebuilders,
    reason_of,
)
from .report import ConversionError

LEGACY_TORCH = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)
NOT_CHECKPOINTS = {
    b'<': 'a web page, so the download failed',
    b'version https://git-lfs': 'a Git LFS pointer, so the weights were not fetched',
}
# Under these names, in this order, checkpoints keep the weights beside the rest.
CONTAINERS = ('model', 'state_dict')
SAFETENSORS_DTYPES = {
    'F64': torch.float64,
    'F32': torch.float32,
    'F16': torch.float16,
    'BF16': torch.bfloat16,
    'I64': torch.int64,
    'I32': torch.int32,
    'I16': torch.int16,
    'I8': torch.int8,
    'U8': torch.uint8,
    'BOOL': torch.bool,
}


def read_tensors(path: Path, *, trust: bool = False) -> dict[str, Tensor]:
    """Return the named tensors of the checkpoint at `path`, floats as float32.

    The level that holds them is found (`['model']`, `['state_dict']` or the file
    itself), entries that are no tensors are passed over, and a `module.` in front
    of every name goes.

    Args:
        path: The file.
        trust: Read bare pickles too. Even then only NumPy arrays are built.

    Raises:
        ConversionError: There is no such file, it is truncated or foreign, it
            holds no tensors, or its pickle asks for more than data.
    """
    content = _read_content(path, trust)
    for key in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    entries = content.items() if isinstance(content, Mapping) else ()
    tensors = {
        str(name): tensor
        for name, value in entries
        if (tensor := _as_tensor(value)) is not None
    }
    if not tensors:
        raise ConversionError('holds no named tensors')
    while all(name.startswith('module.') for name in tensors):
        tensors = {name.removeprefix('module.'): t for name, t in tensors.items()}
    return tensors


def sha256_of(path: Path) -> str:
    """Return the file's SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read_content(path: Path, trust: bool) -> Any:
    if not path.is_file():
        raise ConversionError('no such file')
    with path.open('rb') as file:
        head = file.read(64)
    if not head:
        raise ConversionError('the file is empty')
    for start, meaning in NOT_CHECKPOINTS.items():
        if head.lstrip().startswith(start):
            raise ConversionError(f'not a checkpoint but {meaning}')
    reader = _reader_for(head, path)
    if reader is _read_pickle and not trust:
        raise ConversionError(
            'a bare pickle is read only with --trust (trust=True), and even '
            'then nothing but NumPy arrays is built from it'
        )
    try:
        return reader(path)
    except ConversionError:
        raise
    except Exception as error:
        # The readers meet broken bytes in every layer, so the type says little.
        raise ConversionError(reason_of(error)) from error


def _reader_for(head: bytes, path: Path) -> Callable[[Path], Any]:
    if head.startswith((b'PK\x03\x04', LEGACY_TORCH)):
        return _read_torch
    if head[8:9] == b'{':
        return _read_safetensors
    if head.startswith(b'\x80') or path.suffix == '.pkl':
        return _read_pickle
    raise ConversionError(
        'not a checkpoint: neither a PyTorch file, nor safetensors, nor a pickle'
    )


def _read_torch(path: Path) -> Any:
    return load_weights_only(path, 'cpu')


def _read_pickle(path: Path) -> Any:
    with path.open('rb') as file:
        # latin1: what Python 2 wrote, as in detectron2's older files.
        return ArrayUnpickler(file, encoding='latin1').load()


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    raw = path.read_bytes()
    (length,) = struct.unpack('<Q', raw[:8])
    header = json.loads(raw[8 : 8 + length])
    header.pop('__metadata__', None)
    data = memoryview(raw)[8 + length :]
    return {name: _slice_tensor(data, entry) for name, entry in header.items()}


def _slice_tensor(data: memoryview, entry: dict) -> Tensor:
    begin, end = entry['data_offsets']
    part = data[begin:end]
    if len(part) != end - begin:
        raise ValueError(f'{len(data)} bytes of data where {end} are announced')
    dtype = SAFETENSORS_DTYPES[entry['dtype']]
    if not part:
        return torch.empty(entry['shape'], dtype=dtype)
    return torch.frombuffer(bytearray(part), dtype=dtype).reshape(entry['shape'])


def _as_tensor(value: Any) -> Tensor | None:
    if isinstance(value, np.ndarray) and value.dtype.kind in 'fiub':
        value = torch.from_numpy(np.array(value))
    if not isinstance(value, Tensor):
        return None
    value = value.detach()
    return value.float() if value.is_floating_point() else value


def _array_globals() -> dict[str, Any]:
    from_buffer = np.zeros(1).__reduce_ex__(5)[0]
    return {
        'collections.OrderedDict': OrderedDict,
        'numpy.ndarray': np.ndarray,
        'numpy.dtype': np.dtype,
        '_codecs.encode': latin1_bytes,
        'numpy.core.numeric._frombuffer': from_buffer,
        'numpy._core.numeric._frombuffer': from_buffer,
        **{name: function for function, name in numpy_rebuilders()},
    }


class ArrayUnpickler(DataUnpickler):
    """Builds containers, numbers, strings and NumPy arrays; refuses all else."""

    allowed = _array_globals()
