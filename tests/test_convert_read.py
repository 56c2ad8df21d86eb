"""Reading never runs anything, and what cannot be read says so in one sentence."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import struct

import numpy as np
import pytest
import torch
from payload import Payload, save_legacy, save_pickle, save_zip

from mmdet_centermask.convert import ConversionError
from mmdet_centermask.convert.read import read_tensors

WEIGHT = np.array([[1.5, -2.0], [0.25, 4.0]], np.float32)
STATE = {'a.weight': torch.from_numpy(WEIGHT), 'a.bias': torch.tensor([7.0, 8.0])}


def assert_state(tensors: dict) -> None:
    assert sorted(tensors) == ['a.bias', 'a.weight']
    assert tensors['a.weight'].tolist() == WEIGHT.tolist()
    assert tensors['a.bias'].tolist() == [7.0, 8.0]
    assert {t.dtype for t in tensors.values()} == {torch.float32}


@pytest.mark.parametrize('save', [save_zip, save_legacy])
@pytest.mark.parametrize(
    'content',
    [
        STATE,
        {'model': STATE, 'optimizer': {'state': {0: STATE}}, 'iteration': 269999},
        {'state_dict': STATE, 'meta': {'epoch': 24, 'CLASSES': ('car', 'bus')}},
        {f'module.{name}': tensor for name, tensor in STATE.items()},
        {'model': {f'module.module.{n}': t for n, t in STATE.items()}},
        {'model': {n: t.half() for n, t in STATE.items()}, 'best': np.float64(0.4)},
        {**STATE, '__author__': 'somebody', 'epoch': 3},
    ],
    ids=['flat', 'model', 'state_dict', 'module', 'module2', 'half', 'strays'],
)
def test_containers(tmp_path, save, content):
    if not hasattr(torch.serialization, 'add_safe_globals') and 'best' in content:
        pytest.skip('this torch reads no NumPy numbers with weights_only')
    save(content, tmp_path / 'file.bin')
    assert_state(read_tensors(tmp_path / 'file.bin'))


@pytest.mark.parametrize('protocol', range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_of_arrays(tmp_path, protocol):
    arrays = {'a.weight': WEIGHT, 'a.bias': np.array([7.0, 8.0])}
    content = {'model': arrays, '__author__': 'somebody', 'matching_heuristics': True}
    path = tmp_path / 'zoo.pkl'
    path.write_bytes(pickle.dumps(content, protocol))
    with pytest.raises(ConversionError, match='--trust'):
        read_tensors(path)
    assert_state(read_tensors(path, trust=True))


def test_pickle_of_old_numpy(tmp_path):
    """Before NumPy 2 the functions lived in numpy.core."""
    data = pickle.dumps({'a.weight': WEIGHT, 'a.bias': np.array([7.0, 8.0])}, 2)
    path = tmp_path / 'old.pkl'
    path.write_bytes(data.replace(b'numpy._core.multiarray', b'numpy.core.multiarray'))
    assert_state(read_tensors(path, trust=True))


def safetensors_bytes() -> bytes:
    header = {
        '__metadata__': {'format': 'pt'},
        'a.weight': {'dtype': 'F32', 'shape': [2, 2], 'data_offsets': [0, 16]},
        'a.bias': {'dtype': 'F16', 'shape': [2], 'data_offsets': [16, 20]},
        'a.num_batches_tracked': {
            'dtype': 'I64',
            'shape': [],
            'data_offsets': [20, 28],
        },
    }
    text = json.dumps(header).encode()
    numbers = struct.pack('<4f2eq', 1.5, -2.0, 0.25, 4.0, 7.0, 8.0, 1 << 40)
    return struct.pack('<Q', len(text)) + text + numbers


def test_safetensors_by_hand(tmp_path):
    path = tmp_path / 'model.safetensors'
    path.write_bytes(safetensors_bytes())
    tensors = read_tensors(path)
    assert tensors.pop('a.num_batches_tracked').tolist() == 1 << 40
    assert_state(tensors)


def test_safetensors_by_the_library(tmp_path):
    library = pytest.importorskip('safetensors.torch')
    state = {f'{d}'.removeprefix('torch.'): torch.ones(3, 1, dtype=d) for d in DTYPES}
    state['empty'] = torch.zeros(0, 4)
    library.save_file(state, tmp_path / 'model.safetensors')
    tensors = read_tensors(tmp_path / 'model.safetensors')
    assert {n: tuple(t.shape) for n, t in tensors.items()} == {
        n: tuple(t.shape) for n, t in state.items()
    }
    assert all((tensors[n] == 1).all() for n in tensors)


DTYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
)


@pytest.mark.parametrize('trust', [False, True])
@pytest.mark.parametrize('save', [save_zip, save_legacy, save_pickle])
def test_malicious_file_does_nothing(tmp_path, save, trust):
    trace, path = tmp_path / 'trace', tmp_path / 'model.pth'
    save({'model': {'a': WEIGHT}, 'extra': Payload(trace)}, path)
    with pytest.raises(ConversionError) as caught:
        read_tensors(path, trust=trust)
    assert not trace.exists()
    if trust or save is not save_pickle:
        assert f'{os.mkdir.__module__}.mkdir' in str(caught.value)
        assert 'nothing in it was run' in str(caught.value)
    # The payload is real: an ordinary reader runs it.
    pickle.loads(pickle.dumps(Payload(trace)))
    assert trace.exists()


@pytest.mark.parametrize(
    'content',
    [
        b'cos\nsystem\n(S"true"\ntR.',
        b'\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.',
        b'\x80\x04\x8c\x05numpy\x8c\x0cndarray.dump\x93.',
        b'\x80\x04\x8c\x05numpy\x8c\x04load\x93.',
        b'\x80\x04\x8c\x05numpy\x8c\x08__dict__\x93.',
        b'\x80\x02X\x01\x00\x00\x00aQ.',
    ],
    ids=['os.system', 'eval', 'dotted', 'numpy.load', '__dict__', 'persistent id'],
)
def test_only_arrays_are_built(tmp_path, content):
    path = tmp_path / 'model.pkl'
    path.write_bytes(content)
    with pytest.raises(ConversionError):
        read_tensors(path, trust=True)


def test_object_of_another_library(tmp_path):
    save_zip({'model': STATE, 'args': argparse.Namespace(lr=1)}, tmp_path / 'a.pth')
    with pytest.raises(ConversionError, match=r'asks for argparse\.Namespace'):
        read_tensors(tmp_path / 'a.pth')


@pytest.mark.parametrize('save', [save_zip, save_legacy, save_pickle])
@pytest.mark.parametrize('part', [0.1, 0.5, 0.99])
def test_truncated(tmp_path, save, part):
    path = tmp_path / 'model.pth'
    arrays = {n: t.numpy() for n, t in STATE.items()} if save is save_pickle else STATE
    save({'model': arrays}, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(ConversionError, match='truncated, damaged or foreign'):
        read_tensors(path, trust=True)


@pytest.mark.parametrize('keep', [12, 100, -1])
def test_truncated_safetensors(tmp_path, keep):
    path = tmp_path / 'model.safetensors'
    path.write_bytes(safetensors_bytes()[:keep])
    with pytest.raises(ConversionError, match='truncated, damaged or foreign'):
        read_tensors(path)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'the file is empty'),
        (b'\n<!DOCTYPE html><html></html>', 'a web page'),
        (
            b'version https://git-lfs.github.com/spec/v1\noid sha256:0',
            'Git LFS pointer',
        ),
        (b'just some text, longer than a header', 'neither a PyTorch file'),
        (b'PK\x03\x04 and nothing of a zip behind it', 'truncated, damaged or foreign'),
    ],
)
def test_foreign(tmp_path, content, message):
    path = tmp_path / 'model.pth'
    path.write_bytes(content)
    with pytest.raises(ConversionError, match=message) as caught:
        read_tensors(path)
    assert 'weights_only' not in str(caught.value)


def test_no_tensors(tmp_path):
    save_zip({'model': {}, 'iteration': 3}, tmp_path / 'a.pth')
    with pytest.raises(ConversionError, match='no named tensors'):
        read_tensors(tmp_path / 'a.pth')
    with pytest.raises(ConversionError, match='no such file'):
        read_tensors(tmp_path / 'b.pth')
