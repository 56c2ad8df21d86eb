"""torch's safe loading opens mmengine's checkpoints and still refuses code."""

from operator import itemgetter
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub

from mmdet_centermask import safe_checkpoints
from mmdet_centermask.environment import torch_release
from mmdet_centermask.safe_checkpoints import (
    CheckpointError,
    history_statistic,
    load_data,
)


class Call:
    """Pickles as the call of `function` with `args`."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.fixture(params=['weights_only', 'own unpickler'], autouse=True)
def route(request, monkeypatch):
    """Both ways of `load_data`; torch before 2.6 takes the second."""
    if request.param == 'own unpickler':
        monkeypatch.setattr(safe_checkpoints, 'torch_release', lambda: (2, 1))
    elif torch_release() < safe_checkpoints.FIRST_TORCH_WITH_ALLOW_LIST:
        pytest.skip('this torch cannot be told what weights_only allows')


def load_back(content, tmp_path):
    torch.save(content, tmp_path / 'file.pth')
    return load_data(tmp_path / 'file.pth')


def test_message_hub_comes_back(tmp_path):
    hub = MessageHub.get_instance(tmp_path.name)
    for loss in (3.0, 2.0, 1.0):
        hub.update_scalar('train/loss', loss)
    hub.update_info('best_score', np.float64(0.25))
    hub.update_info('iter', 3)

    loaded = load_back({'message_hub': hub.state_dict()}, tmp_path)['message_hub']

    history = loaded['log_scalars']['train/loss']
    assert isinstance(history, HistoryBuffer)
    np.testing.assert_array_equal(history.data[0], [3.0, 2.0, 1.0])
    assert history.statistics('mean', 2) == 1.5
    assert loaded['runtime_info'] == {'best_score': 0.25, 'iter': 3}


@pytest.mark.parametrize('dtype', ['bool', 'int32', 'int64', 'float32', 'float64'])
def test_numpy_numbers_come_back(tmp_path, dtype):
    array = np.array([[0, 1, 1]], dtype=dtype)
    loaded = load_back({'array': array, 'scalar': array[0, 1]}, tmp_path)
    assert loaded['array'].dtype == dtype
    np.testing.assert_array_equal(loaded['array'], array)
    assert loaded['scalar'] == 1


def test_files_written_with_numpy_1_open(tmp_path):
    content = {'best': np.float64(1.5), 'history': np.array([1.0, 2.0])}
    torch.save(content, tmp_path / 'new.pth')
    with (
        ZipFile(tmp_path / 'new.pth') as new,
        ZipFile(tmp_path / 'old.pth', 'w') as old,
    ):
        for name in new.namelist():
            member = new.read(name)
            # NumPy 2 renamed the module that its pickles name.
            old.writestr(name, member.replace(b'numpy._core.', b'numpy.core.'))
    loaded = load_data(tmp_path / 'old.pth')
    assert loaded['best'] == 1.5
    np.testing.assert_array_equal(loaded['history'], [1.0, 2.0])


@pytest.mark.parametrize(
    'content',
    [
        Call(eval, '1 + 1'),
        Call(getattr, HistoryBuffer, '__init__'),
        Call(getattr, np.ndarray, 'tofile'),
        Call(itemgetter, 0),
    ],
    ids=['eval', 'other attribute', 'other class', 'other function'],
)
def test_code_is_refused(tmp_path, content):
    with pytest.raises(CheckpointError) as caught:
        load_back({'x': content}, tmp_path)
    assert str(tmp_path / 'file.pth') in str(caught.value)
    assert '\n' not in str(caught.value)


def test_refused_attribute_is_named():
    with pytest.raises(ValueError, match="attribute '__globals__' of .*only.*HistoryB"):
        history_statistic(HistoryBuffer, '__globals__')


def test_device_that_is_not_here_is_no_damage(tmp_path):
    torch.save({'x': torch.ones(2)}, tmp_path / 'cpu.pth')
    with (
        ZipFile(tmp_path / 'cpu.pth') as cpu,
        ZipFile(tmp_path / 'gpu.pth', 'w') as gpu,
    ):
        for name in cpu.namelist():
            member = cpu.read(name)
            # A pickled string is its length and its letters.
            gpu.writestr(name, member.replace(b'\x03\0\0\0cpu', b'\x04\0\0\0cuda'))
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match='map_location') as caught:
            load_data(tmp_path / 'gpu.pth')
        assert not isinstance(caught.value, CheckpointError)
    assert load_data(tmp_path / 'gpu.pth', 'cpu')['x'].tolist() == [1.0, 1.0]


def test_missing_file_stays_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_data(tmp_path / 'none.pth')
