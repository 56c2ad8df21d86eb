"""The images as far as they go without Docker: linted, their steps executed here."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

FILES = ('Dockerfile', 'Dockerfile.cpu')


class Step(NamedTuple):
    """One instruction of a Dockerfile."""

    name: str
    text: str


def steps(path: Path) -> list[Step]:
    """The instructions, lines that go on joined, comments left out."""
    lines = [line for line in path.read_text().splitlines() if line[:1] != '#']
    joined = '\n'.join(lines).replace('\\\n', ' ').splitlines()
    return [Step(*line.split(maxsplit=1)) for line in joined if line.strip()]


@pytest.mark.parametrize('name', FILES)
def test_linter_finds_nothing(repository, name):
    """hadolint stands beside the interpreter where `make setup` has been."""
    linter = shutil.which('hadolint', path=str(Path(sys.executable).parent))
    if linter is None:
        pytest.skip('hadolint is not installed')
    done = subprocess.run(
        [linter, '--no-color', repository / 'docker' / name],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, '')


def pins(path: Path) -> dict[str, str]:
    return dict(re.findall(r'^([\w-]+)==([\w.]+)$', path.read_text(), re.MULTILINE))


def test_images_have_the_versions_that_are_tested(repository):
    classic = pins(repository / 'requirements' / 'classic.txt')
    tested = pins(repository / 'requirements' / 'tested.txt')
    assert classic['torch'] == '2.1.2'
    base, *_ = steps(repository / 'docker' / 'Dockerfile')
    assert base.text.startswith('pytorch/pytorch:2.1.2-cuda12.1-')
    for name in ('mmcv', 'mmengine', 'mmdet', 'openmim'):
        assert classic[name] == tested[name]
        text = (repository / 'docker' / 'Dockerfile').read_text()
        assert f'{name}=={classic[name]}' in text
    text = (repository / 'docker' / 'Dockerfile.cpu').read_text()
    assert f'onnxruntime=={tested["onnxruntime"]}' in text


def test_what_is_copied_is_there(repository):
    """Every COPY names files of the repository, but for the exported model."""
    for name in FILES:
        for step in steps(repository / 'docker' / name):
            if step.name == 'COPY':
                *sources, _ = step.text.split()
                own = [source for source in sources if '${MODEL}' not in source]
                assert own and all((repository / source).exists() for source in own)


# The server, with a network that finds a square wherever it looks.


class Square:
    """Stands in for the `Predictor` of predict.py."""

    info = dict(classes=['pear', 'plum'])

    def __call__(self, picture: np.ndarray, score_thr: float) -> dict:
        masks = np.zeros((2, *picture.shape[:2]), bool)
        masks[0, 2:5, 3:7] = True
        masks[1, :, 1] = True
        scores = np.array([0.5, 0.9])
        kept = scores > score_thr
        return dict(
            boxes=np.array([[3, 2, 7, 5], [1, 0, 2, 8.123]])[kept],
            labels=np.array([0, 1])[kept],
            scores=np.array([0.6, 0.95])[kept],
            mask_scores=scores[kept],
            masks=masks[kept],
        )


def load_picture(source) -> np.ndarray:
    with Image.open(source) as image:
        return np.asarray(image.convert('RGB'))


@pytest.fixture
def serve(repository, monkeypatch) -> ModuleType:
    neighbour = ModuleType('predict')
    neighbour.Predictor, neighbour.load_picture = Square, load_picture
    monkeypatch.setitem(sys.modules, 'predict', neighbour)
    path = repository / 'docker' / 'serve.py'
    spec = importlib.util.spec_from_file_location('serve', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def ask(serve, monkeypatch):
    """A function that sends a request to a running server."""
    monkeypatch.setattr(serve.Handler, 'log_message', lambda *args: None)
    server = serve.Server(('127.0.0.1', 0), Square())
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    def request(method: str, path: str, body=None, headers=None) -> tuple[int, dict]:
        connection = HTTPConnection('127.0.0.1', server.server_port, timeout=30)
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        content = json.loads(answer.read())
        connection.close()
        return answer.status, content

    yield request
    server.shutdown()
    server.server_close()
    thread.join()


def png(height=8, width=10) -> bytes:
    file = BytesIO()
    Image.new('RGB', (width, height)).save(file, 'PNG')
    return file.getvalue()


def test_answer_of_the_server(ask):
    assert ask('GET', '/health') == (
        200,
        dict(status='ready', classes=['pear', 'plum']),
    )
    status, content = ask('POST', '/predict', png())
    assert status == 200 and (content['height'], content['width']) == (8, 10)
    first, second = content['objects']
    assert (first['label'], first['score'], first['mask_score']) == ('plum', 0.95, 0.9)
    assert first['box'] == [1, 0, 2, 8.12]
    plum, pear = (
        coco_mask.decode(coco_mask.frPyObjects(entry['mask'], 8, 10))
        for entry in (first, second)
    )
    assert plum[:, 1].all() and plum.sum() == 8
    assert pear[2:5, 3:7].all() and pear.sum() == 12
    _, content = ask('POST', '/predict?score_thr=0.7', png())
    assert [entry['label'] for entry in content['objects']] == ['plum']
    assert ask('POST', '/predict?score_thr=1', png())[1]['objects'] == []


@pytest.mark.parametrize('fill', [0, 1, 'checks', 'first', 'last'])
def test_rle_is_that_of_coco(serve, fill):
    mask = np.full((5, 4), fill == 1)
    if fill == 'checks':
        mask[::2, ::2] = True
    elif fill in ('first', 'last'):
        mask.flat[0 if fill == 'first' else -1] = True
    rle = serve.as_rle(mask)
    assert sum(rle['counts']) == 20
    found = coco_mask.decode(coco_mask.frPyObjects(rle, 5, 4))
    np.testing.assert_array_equal(found, mask)


@pytest.mark.parametrize(
    'path, body, headers, status, word',
    [
        ('/predict', b'no picture', None, 400, 'not a picture'),
        ('/predict', png()[:45], None, 400, 'not a picture'),
        ('/predict?score_thr=high', png(), None, 400, "'high'"),
        ('/other', png(), None, 404, '/predict'),
        ('/predict', None, {'Content-Length': '99999999'}, 413, '99999999'),
        ('/predict', None, {'Content-Length': 'many'}, 411, 'Content-Length'),
    ],
    ids=['text', 'cut', 'threshold', 'path', 'large', 'length'],
)
def test_server_refuses_and_lives_on(ask, path, body, headers, status, word):
    found, content = ask('POST', path, body, headers)
    assert found == status
    assert word in content['error'] and '\n' not in content['error']
    assert ask('GET', '/health')[0] == 200
    assert ask('GET', '/other')[0] == 404


@pytest.mark.slow
def test_steps_of_the_cpu_image(repository, exported, tmp_path):
    """RUN, COPY, ENTRYPOINT and HEALTHCHECK in a fresh environment, then a picture."""
    venv, work = tmp_path / 'venv', tmp_path / 'app'
    subprocess.run([sys.executable, '-m', 'venv', venv], check=True)
    clean = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    env = {**clean, 'PATH': f'{venv / "bin"}:{clean["PATH"]}'}
    work.mkdir()

    def run(*command: str) -> None:
        done = subprocess.run(
            command, cwd=work, env=env, capture_output=True, text=True
        )
        if 'pip install' in command[-1] and done.returncode:
            pytest.skip(f'pip cannot install here: {done.stderr.splitlines()[-1]}')
        assert done.returncode == 0, f'{command}\n{done.stderr[-3000:]}'

    given: dict[str, list[str]] = {}
    for step in steps(repository / 'docker' / 'Dockerfile.cpu'):
        if step.name == 'RUN':
            run('sh', '-c', step.text)
        elif step.name == 'COPY':
            *sources, target = step.text.split()
            assert target == './'
            for source in sources:
                path = source.replace('${MODEL}', str(exported.folder))
                shutil.copy(repository / path, work)
        elif step.name == 'HEALTHCHECK':
            given['HEALTHCHECK'] = json.loads(step.text.removeprefix('CMD '))
        elif step.name in ('ENTRYPOINT', 'CMD'):
            given[step.name] = json.loads(step.text)

    command = [*given['ENTRYPOINT'], *given['CMD']]
    command[command.index('0.0.0.0')] = '127.0.0.1'
    command[command.index('8000')] = '8123'
    server = subprocess.Popen(command, cwd=work, env=env, stdout=subprocess.PIPE)
    try:
        assert b'listening' in server.stdout.readline()
        run(*given['HEALTHCHECK'], '--port', '8123')
        connection = HTTPConnection('127.0.0.1', 8123, timeout=60)
        connection.request('POST', '/predict?score_thr=0', body=png(64, 96))
        content = json.loads(connection.getresponse().read())
    finally:
        server.kill()
        server.wait()
    assert (content['height'], content['width']) == (64, 96)
    for entry in content['objects']:
        assert entry['mask']['size'] == [64, 96]
    assert len(content['objects']) > 0
