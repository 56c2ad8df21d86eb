"""Files nobody sane would convert: right tensors or one clear error, and nothing runs.

`FUZZ_EXAMPLES=1000 pytest tests/test_fuzz_converter.py` looks at more of them.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from payload import save_legacy, save_pickle, save_zip

from mmdet_centermask.convert import ConversionError, convert_checkpoint
from mmdet_centermask.convert.read import read_tensors
from mmdet_centermask.safe_checkpoints import CheckpointError, load_data

STATE = {
    'stem.stem_1/conv.weight': torch.arange(27.0).reshape(1, 3, 3, 3),
    'stem.stem_1/norm.bias': torch.tensor([7.0]),
}
SUFFIXES = ('.pth', '.pkl', '.bin', '.safetensors')
# What an attacker would call, and what it is called with.
CALLS = (
    ('os', 'mkdir', 'path'),
    ('posix', 'mkdir', 'path'),
    ('os', 'system', 'shell'),
    ('subprocess', 'check_call', 'shell'),
    ('builtins', 'exec', 'code'),
    ('builtins', 'eval', 'code'),
    ('__builtin__', 'eval', 'code'),
    ('builtins', '__import__', 'module'),
    ('builtins', 'getattr', 'attribute'),
    ('importlib', 'import_module', 'module'),
    ('numpy', 'load', 'path'),
    ('torch', 'load', 'path'),
    ('torch.hub', 'load', 'path'),
    ('mmengine.config', 'Config.fromfile', 'path'),
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp('files')


def safetensors_of(header: object, data: bytes, length: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack('<Q', len(text) if length is None else length) + text + data


def good_file(kind: str) -> bytes:
    """A small checkpoint in one of the containers."""
    if kind == 'safetensors':
        entry = {'dtype': 'F32', 'shape': [2, 2], 'data_offsets': [0, 16]}
        return safetensors_of({'stem.stem_1/conv.weight': entry}, bytes(16))
    return GOOD_FILES[kind]


@pytest.fixture(scope='module', autouse=True)
def good_files(folder):
    arrays = {name: tensor.numpy() for name, tensor in STATE.items()}
    for kind, save, content in (
        ('zip', save_zip, {'model': STATE}),
        ('legacy', save_legacy, {'model': STATE}),
        ('pickle', save_pickle, {'model': arrays}),
    ):
        save(content, folder / kind)
        GOOD_FILES[kind] = (folder / kind).read_bytes()


GOOD_FILES: dict[str, bytes] = {}
KINDS = ('zip', 'legacy', 'pickle', 'safetensors')


def read(path: Path, trust: bool = True) -> dict | None:
    """The tensors, or None after one clear sentence."""
    try:
        tensors = read_tensors(path, trust=trust)
    except ConversionError as error:
        text = str(error)
        assert len(text) > 10 and '\n' not in text, text
        assert 'weights_only=False' not in text  # no advice to run the file
        return None
    assert tensors and all(torch.is_tensor(tensor) for tensor in tensors.values())
    return tensors


@given(
    kind=st.sampled_from(KINDS),
    kept=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
    suffix=st.sampled_from(SUFFIXES),
)
def test_damaged(folder, kind, kept, flips, suffix):
    content = bytearray(good_file(kind))
    content = content[: round(kept * len(content))]
    for place, value in flips:
        if content:
            content[int(place * (len(content) - 1))] = value
    path = folder / f'damaged{suffix}'
    path.write_bytes(content)
    tensors = read(path)
    if bytes(content) == good_file(kind):
        assert tensors is not None


@given(
    start=st.sampled_from(
        [b'', b'PK\x03\x04', b'\x80\x02', b'\x80\x04', b'\0' * 8 + b'{']
    ),
    rest=st.binary(max_size=400),
    suffix=st.sampled_from(SUFFIXES),
)
@example(start=b'\x80\x02', rest=b'P', suffix='.pkl')  # torch says it in two lines
def test_foreign(folder, start, rest, suffix):
    path = folder / f'foreign{suffix}'
    path.write_bytes(start + rest)
    read(path)


NUMBERS = st.integers(-(2**63), 2**63) | st.integers(-3, 40)
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        'dtype': st.sampled_from(['F32', 'F16', 'I64', 'BOOL', 'F8', 3, None]),
        'shape': st.lists(NUMBERS, max_size=4) | st.just('wide') | st.none(),
        'data_offsets': st.lists(NUMBERS, max_size=3) | st.just('all') | st.none(),
    },
)


@given(
    header=st.dictionaries(st.text(max_size=8), ENTRIES | st.none(), max_size=3)
    | st.lists(st.integers(), max_size=3),
    data=st.binary(max_size=64),
    length=st.none() | st.integers(0, 2**64 - 1),
)
@example(
    header={'a': {'dtype': 'F32', 'shape': [2**40], 'data_offsets': [0, 2**42]}},
    data=b'',
    length=None,
)
def test_made_up_safetensors(folder, header, data, length):
    path = folder / 'model.safetensors'
    path.write_bytes(safetensors_of(header, data, length))
    read(path)


def call_of(module: str, name: str, kind: str, trace: Path, protocol: int) -> bytes:
    """A pickle, in opcodes, of a dict whose one value is the call."""
    argument = {
        'path': str(trace),
        'shell': f'mkdir {trace}',
        'code': f'__import__("os").mkdir({str(trace)!r})',
        'module': 'os',
        'attribute': '__class__',
    }[kind]

    def text(value: str) -> bytes:
        raw = value.encode()
        return b'X' + struct.pack('<I', len(raw)) + raw

    if protocol < 4:
        function = f'c{module}\n{name}\n'.encode()
    else:
        function = text(module) + text(name) + b'\x93'
    arguments = text(argument) + b'\x85'
    return (
        (b'\x80' + bytes([protocol]) if protocol > 1 else b'')
        + b'}'
        + (text('weight') + function + arguments + b'R' + b's')
        + b'.'
    )


@given(
    call=st.sampled_from(CALLS),
    kind=st.sampled_from(['pickle', 'zip', 'legacy']),
    protocol=st.sampled_from([0, 2, 3, 4, 5]),
    trust=st.booleans(),
    suffix=st.sampled_from(SUFFIXES),
)
def test_malicious(folder, call, kind, protocol, trust, suffix):
    trace, path = folder / 'trace', folder / f'evil{suffix}'
    program = call_of(*call, trace, protocol)
    if kind == 'pickle':
        path.write_bytes(program)
    else:
        path.write_bytes(good_file(kind).replace(pickled_model(kind), program))
    assert read(path, trust) is None
    with pytest.raises(CheckpointError):
        load_data(path)
    assert not trace.exists()


def pickled_model(kind: str) -> bytes:
    """The part of the good file that is the pickle of its contents."""
    content = good_file(kind)
    if kind == 'zip':
        start = content.index(b'\x80\x02}')
        return content[start : content.index(b'PK\x07\x08', start)]
    start = content.index(b'\x80\x02}', content.index(b'type_sizes'))
    return content[start : content.index(b'.\x80\x02]', start) + 1]


SHAPES = st.lists(st.integers(0, 5), max_size=4)
NAMES = st.sampled_from(
    [
        'backbone.bottom_up.stem.stem_1/conv.weight',
        'stem.0.conv.weight',
        'backbone.body.stem.stem_1/conv.weight',
        'proposal_generator.fcos_head.cls_logits.weight',
        'roi_heads.mask_head.predictor.bias',
        'model',
        'state_dict',
        'pixel_mean',
    ]
) | st.text(max_size=12)
VALUES = (
    SHAPES.map(torch.zeros)
    | SHAPES.map(lambda shape: np.zeros(shape, np.float16))
    | st.none()
    | st.integers()
    | st.text(max_size=5)
)


@given(
    state=st.dictionaries(NAMES, VALUES, max_size=5),
    options=st.fixed_dictionaries(
        {},
        optional={
            'classes': st.lists(st.integers(-2, 90), max_size=3),
            'num_classes': st.integers(-2, 3),
            'backbone_only': st.booleans(),
            'fold_rgb': st.booleans(),
            'source': st.sampled_from(['centermask2', 'timm', 'backbone', 'nothing']),
        },
    ),
)
def test_made_up_checkpoints(folder, state, options):
    torch.save({'model': state}, folder / 'made-up.pth')
    dst = folder / 'converted.pth'
    try:
        report = convert_checkpoint(folder / 'made-up.pth', dst, **options)
    except ConversionError as error:
        assert 'made-up.pth' in str(error) or 'classes' in str(error)
    else:
        assert not report.fits and report.problems()
    assert not dst.exists()
