"""A malicious file on every way by which a checkpoint comes in: nothing runs."""

from __future__ import annotations

import shutil
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmdet.apis import DetInferencer, init_detector
from mmengine.config import Config
from mmengine.model import BaseModel, BaseModule
from mmengine.runner import Runner, load_checkpoint
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader
from payload import assert_it_bites, malicious_checkpoint, save_legacy, save_zip
from tiny_centermask import tiny_config

from mmdet_centermask import safe_checkpoints
from mmdet_centermask.models.vovnet import VoVNet
from mmdet_centermask.safe_checkpoints import CheckpointError

NAME = 'evil.pth'
REFUSAL = r'evil\.pth: refused, because its pickle asks for \w+\.mkdir where'


class Net(BaseModel):
    """The least that a runner takes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, *args, **kwargs):
        return self.weight


@pytest.fixture(params=[save_zip, save_legacy], ids=['zip', 'legacy'])
def evil(request, tmp_path) -> Path:
    """The file; it must not have been run when the test is over."""
    path = tmp_path / NAME
    trace = malicious_checkpoint(path, request.param)
    yield path
    assert_it_bites(path, trace)


@pytest.fixture
def web(evil):
    """The folder of the file, served over HTTP; the address."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(evil.parent))
    handler.log_message = handler.func.log_message
    server = ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()
    server.server_close()


def make_runner(folder: Path, **fields) -> Runner:
    return Runner(
        model=Net(),
        work_dir=str(folder),
        experiment_name=folder.name,
        default_hooks=dict(logger=None, checkpoint=None),
        log_level='ERROR',
        **fields,
    )


def test_load_from(evil, tmp_path):
    runner = make_runner(tmp_path, load_from=str(evil))  # tools/test.py, tools/train.py
    with pytest.raises(CheckpointError, match=REFUSAL):
        runner.load_or_resume()


def test_resume(evil, tmp_path):
    runner = make_runner(tmp_path, load_from=str(evil), resume=True)
    with pytest.raises(CheckpointError, match=REFUSAL):
        runner.load_or_resume()


def test_resume_from_the_last_checkpoint(evil, tmp_path):
    (tmp_path / 'last_checkpoint').write_text(str(evil))
    runner = make_runner(tmp_path, resume=True)
    with pytest.raises(CheckpointError, match=REFUSAL):
        runner.load_or_resume()


def test_pretrained_backbone(evil):
    init_cfg = dict(type='Pretrained', checkpoint=str(evil))
    with pytest.raises(CheckpointError, match=REFUSAL):
        VoVNet('V-19-slim-dw', init_cfg=init_cfg).init_weights()


@pytest.mark.parametrize('prefix', [None, 'backbone.'])
def test_pretrained_module_of_mmengine(evil, prefix):
    init_cfg = dict(type='Pretrained', checkpoint=str(evil), prefix=prefix)
    with pytest.raises(CheckpointError, match=REFUSAL):
        BaseModule(init_cfg=init_cfg).init_weights()


def test_inferencer_and_init_detector(evil):
    config = Config(
        dict(
            model=tiny_config(),
            test_dataloader=dict(
                dataset=dict(
                    pipeline=[
                        dict(type='LoadImageFromFile'),
                        dict(type='PackDetInputs'),
                    ],
                )
            ),
        )
    )
    with pytest.raises(CheckpointError, match=REFUSAL):
        init_detector(config, str(evil), device='cpu')
    with pytest.raises(CheckpointError, match=REFUSAL):
        DetInferencer(config, str(evil), device='cpu', show_progress=False)


def test_inferencer_without_a_config(evil):
    with pytest.raises(CheckpointError, match=REFUSAL):
        DetInferencer(weights=str(evil), device='cpu', show_progress=False)


@pytest.mark.parametrize('scheme', sorted(CheckpointLoader._schemes))
def test_every_scheme_of_mmengine(evil, web, scheme, monkeypatch, tmp_path):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
    names = {'model': f'{web}/{NAME}'}
    for table in ('get_torchvision_models', 'get_external_models', 'get_mmcls_models'):
        monkeypatch.setattr(mmengine_checkpoint, table, lambda: names)
    backend = type('Backend', (), {'get': lambda self, path: evil.read_bytes()})
    monkeypatch.setattr(
        mmengine_checkpoint, 'get_file_backend', lambda *args, **kwargs: backend()
    )
    address = {
        '': str(evil),
        'http://': f'{web}/{NAME}',
        r'(\S+\:)?s3://': 's3://model',
        r'(\S+\:)?petrel://': 'petrel://model',
    }.get(scheme, f'{scheme}model')
    if scheme == 'https://':
        address = names['model'] = 'https://127.0.0.1/evil.pth'
        monkeypatch.setattr(
            torch.hub,
            'download_url_to_file',
            lambda url, path, **kwargs: Path(path).write_bytes(evil.read_bytes()),
        )
    download = partial(shutil.copyfile, evil)
    model = SimpleNamespace(name=NAME, download=download)
    pavi = SimpleNamespace(modelcloud=SimpleNamespace(get=lambda path: model))
    monkeypatch.setitem(sys.modules, 'pavi', pavi)
    with pytest.raises(CheckpointError, match='refused, because its pickle asks for'):
        CheckpointLoader.load_checkpoint(address, map_location='cpu')


def test_the_environment_cannot_undo_it(evil, monkeypatch):
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    with pytest.raises(CheckpointError, match=REFUSAL):
        load_checkpoint(Net(), str(evil))


def test_torch_before_the_allow_list(evil, monkeypatch):
    monkeypatch.setattr(safe_checkpoints, 'torch_release', lambda: (2, 1))
    with pytest.raises(CheckpointError, match=REFUSAL):
        load_checkpoint(Net(), str(evil))


def test_a_good_file_still_loads(tmp_path, monkeypatch):
    torch.save({'state_dict': {'weight': torch.tensor([3.0])}}, tmp_path / 'good.pth')
    net = Net()
    load_checkpoint(net, str(tmp_path / 'good.pth'))
    assert net.weight.item() == 3.0
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
    downloads = []

    def download(url, path, progress):
        downloads.append(url)
        Path(path).write_bytes((tmp_path / 'good.pth').read_bytes())

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    for _ in range(2):  # the second time from where torch keeps its downloads
        net.weight.data.zero_()
        load_checkpoint(net, 'https://host.invalid/some/good.pth?download=1')
        assert net.weight.item() == 3.0
    assert downloads == ['https://host.invalid/some/good.pth?download=1']
    assert (tmp_path / 'home' / 'hub' / 'checkpoints' / 'good.pth').is_file()
