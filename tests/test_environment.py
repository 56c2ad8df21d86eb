"""A missing, bare, broken or refused mmcv is one sentence with a command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmdet_centermask import environment

BUILD = 'pip install --no-build-isolation --no-cache-dir '
MEND = BUILD + environment.stack_in_use()['mmcv']
# What a fake `mmcv` package holds, and what has to be said about it.
FAKES = {
    'lite': (
        {'__init__.py': "__version__ = '2.1.0'"},
        'mmcv 2.1.0 has no compiled operators '
        '(mmcv-lite, or built where torch was not installed)',
    ),
    'other torch': (
        {
            '__init__.py': "__version__ = '2.1.0'",
            '_ext.py': "raise ImportError('undefined symbol: c10')",
        },
        'do not load with torch',
    ),
    'refused': (
        {'__init__.py': "__version__ = '2.2.0'", '_ext.py': ''},
        'mmdet refuses mmcv 2.2.0 (MMCV==2.2.0 is used but incompatible; '
        'Please install mmcv>=2.0.0rc4, <2.2.0)',
    ),
}
MISSING = "import sys; sys.modules['mmcv'] = None; "


def run_python(*args: str, path: Path) -> subprocess.CompletedProcess:
    """Run Python with `path`, then the working tree, ahead of site-packages."""
    roots = [str(path), str(Path(environment.__file__).parent.parent)]
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join(roots)}
    return subprocess.run(
        [sys.executable, *args], env=env, cwd=path, capture_output=True, text=True
    )


def fake_mmcv(folder: Path, files: dict[str, str]) -> None:
    package = folder / 'mmcv'
    package.mkdir()
    for name, source in files.items():
        (package / name).write_text(source)


def skip_if_never_refused(case: str) -> None:
    if case == 'refused' and environment.stack_in_use() is environment.FORKS:
        pytest.skip("the fork of mmdet does not check mmcv's version")


def import_report(before: str, path: Path) -> str:
    """Import the package where it must fail; return the message."""
    code = (
        f'{before}\n'
        'import sys\n'
        'try:\n'
        '    import mmdet_centermask\n'
        'except ImportError as error:\n'
        "    assert error.name == 'mmcv', error.name\n"
        "    assert 'mmdet.models' not in sys.modules\n"
        '    print(error)\n'
    )
    done = run_python('-c', code, path=path)
    assert done.returncode == 0, done.stderr
    return done.stdout.rstrip('\n')


def test_missing_mmcv_is_one_sentence_with_the_command(tmp_path):
    message = import_report(MISSING, tmp_path)
    assert message.startswith('mmdet_centermask cannot start: mmcv is not installed; ')
    assert message.endswith(MEND)
    assert '\n' not in message


@pytest.mark.parametrize('case', FAKES)
def test_unfit_mmcv_is_one_sentence_with_the_command(tmp_path, case):
    skip_if_never_refused(case)
    files, problem = FAKES[case]
    fake_mmcv(tmp_path, files)
    message = import_report('', tmp_path)
    assert problem in message
    assert message.endswith(MEND)
    assert '\n' not in message


@pytest.mark.parametrize('arguments', [['train.py', 'x'], ['test.py', 'x', 'y.pth']])
def test_tools_exit_with_the_sentence_and_no_traceback(tmp_path, repository, arguments):
    files, problem = FAKES['lite']
    fake_mmcv(tmp_path, files)
    tool = str(repository / 'tools' / arguments[0])
    done = run_python(tool, *arguments[1:], path=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ''
    assert problem in done.stderr
    assert done.stderr.count('\n') == 1


@pytest.mark.parametrize('tool', ['train.py', 'test.py'])
def test_help_needs_no_torch(tmp_path, repository, tool):
    (tmp_path / 'torch.py').write_text("raise RuntimeError('torch was imported')")
    done = run_python(str(repository / 'tools' / tool), '-h', path=tmp_path)
    assert done.returncode == 0, done.stderr
    assert '--launcher' in done.stdout
    # mim takes this word as a sign that the script wants to be given a device.
    assert '--gpus' not in done.stdout


def test_installed_stack_is_accepted():
    assert environment.mmcv_problem() is None


@pytest.mark.parametrize(
    'installed, torch, command',
    [
        (
            {},
            (2, 13),
            f'pip install "setuptools<82" wheel ninja psutil && {BUILD}mmcv==2.1.0',
        ),
        (
            {'mmcv': ['mmcv-lite', 'mmcv-lite']},
            (2, 6),
            'pip uninstall -y mmcv-lite && '
            f'pip install "setuptools<82" wheel ninja psutil && {BUILD}mmcv==2.1.0',
        ),
        ({}, (2, 1), 'mim install mmcv==2.1.0'),
        (
            {'mmcv': ['onedl-mmcv'], 'mmdet': ['mmdet']},
            (1, 13),
            'pip uninstall -y onedl-mmcv && mim install mmcv==2.1.0',
        ),
        (
            {'mmcv': ['mmcv'], 'mmdet': ['onedl-mmdetection']},
            (2, 1),
            'pip uninstall -y mmcv && pip install "setuptools<82" wheel ninja psutil '
            f'&& {BUILD}onedl-mmcv==2.3.6',
        ),
    ],
)
def test_mend_command(monkeypatch, installed, torch, command):
    monkeypatch.setattr(
        environment.metadata, 'packages_distributions', lambda: installed
    )
    monkeypatch.setattr(environment, 'torch_release', lambda: torch)
    assert environment.mend_command() == command
