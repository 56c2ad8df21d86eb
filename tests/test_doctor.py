"""The doctor answers where nothing else does, and names the command that mends."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_environment import (
    BUILD,
    FAKES,
    fake_mmcv,
    run_python,
    skip_if_never_refused,
)

from mmdet_centermask import doctor, environment
from mmdet_centermask.doctor import Finding, library, release_of, report

CALL = ('-m', 'mmdet_centermask.doctor')


@pytest.fixture
def fake_environment(monkeypatch):
    """Replace what is installed: module -> {distribution: version}."""

    def replace(**modules):
        versions = {d: v for found in modules.values() for d, v in found.items()}
        for place in (doctor, environment):
            monkeypatch.setattr(
                place, 'distributions', lambda module: sorted(modules.get(module, {}))
            )
        monkeypatch.setattr(
            doctor, 'metadata', SimpleNamespace(version=versions.__getitem__)
        )

    return replace


def answers(path: Path, *flags: str) -> tuple[int, str]:
    """Exit code and output of the doctor, which never writes to stderr."""
    done = run_python(*flags, *CALL, path=path)
    assert done.stderr == ''
    return done.returncode, done.stdout


def test_nothing_installed(tmp_path):
    code, text = answers(tmp_path, '-S')  # without site-packages
    assert code == 1
    for command in (
        'pip install torch==2.13.0',
        'pip install mmengine==0.10.7',
        'pip install mmdet==3.3.0',
        'pip install opencv-python',
        BUILD + 'mmcv==2.1.0',
    ):
        assert re.search(rf'^    .*{re.escape(command)}$', text, re.MULTILINE), command
    assert 'everything fits' not in text


def test_installed_stack_fits(tmp_path):
    code, text = answers(tmp_path, '-W', 'ignore')
    assert code == 0, text
    assert text.endswith('\neverything fits\n')
    assert re.search(r'mmcv +[\d.]+ +its operators load\n', text)
    assert re.search(r'^mmdet_centermask .*its modules are registered$', text, re.M)


@pytest.mark.parametrize('case', FAKES)
def test_unfit_mmcv(tmp_path, case):
    skip_if_never_refused(case)
    files, problem = FAKES[case]
    fake_mmcv(tmp_path, files)
    code, text = answers(tmp_path, '-W', 'ignore')
    assert code == 1
    assert re.search(rf'^[\w-]*mmcv: .*{re.escape(problem)}', text, re.MULTILINE)
    assert re.search(rf'^    .*{re.escape(environment.mend_command())}$', text, re.M)
    # Every other line of the table is as it should be.
    assert text.count('PROBLEM') == 1


@pytest.mark.parametrize('module', ['mmcv', 'mmdet', 'cv2'])
def test_missing_library(tmp_path, module):
    hide = (
        'import sys, importlib.metadata as m\n'
        f'sys.modules[{module!r}] = None\n'
        'real = m.packages_distributions\n'
        'm.packages_distributions = '
        f'lambda: {{k: v for k, v in real().items() if k != {module!r}}}\n'
    )
    (tmp_path / 'sitecustomize.py').write_text(hide)
    code, text = answers(tmp_path, '-W', 'ignore')
    assert code == 1
    name = module.replace('cv2', 'opencv')
    assert re.search(rf'\n{name}: \w+ is not installed\n    pip install ', text)


def test_two_distributions_in_the_same_files(fake_environment):
    fake_environment(mmdet={'mmdet': '3.3.0', 'onedl-mmdetection': '3.5.1'})
    found = library('mmdet', 'mmdet==3.3.0', ((3, 3), (3, 4)))
    assert found.problem.startswith('mmdet and onedl-mmdetection are both installed')
    assert found.mend == (
        'pip uninstall -y mmdet onedl-mmdetection && pip install mmdet==3.3.0'
    )


@pytest.mark.parametrize(
    ('version', 'fits'),
    [('3.2.0', False), ('3.3.0', True), ('3.3.9rc1', True), ('3.4.0', False)],
)
def test_releases_that_fit(fake_environment, version, fits):
    fake_environment(mmdet={'mmdet': version})
    found = library('mmdet', 'mmdet==3.3.0', ((3, 3), (3, 4)))
    assert found.version == version
    if fits:
        assert not found.problem
    else:
        assert found.problem == '3.3 or later is needed, before 3.4'
        assert found.mend == 'pip install mmdet==3.3.0'


def test_a_library_that_fails_is_installed_again(fake_environment):
    def trial():
        raise RuntimeError('Numpy is not available\nand more lines')

    fake_environment(numpy={'numpy': '2.4.6'})
    found = library('numpy', '"numpy<2"', doctor.ANY, trial)
    assert found.problem == 'it fails: Numpy is not available'
    assert found.mend == 'pip install --force-reinstall --no-deps "numpy<2"'


@pytest.mark.parametrize(('torch', 'numpy'), [((2, 2), 'numpy<2'), ((2, 3), '>=2')])
def test_numpy_that_goes_with_torch(monkeypatch, torch, numpy):
    def trial():
        raise RuntimeError

    monkeypatch.setattr(doctor, 'torch_release', lambda: torch)
    monkeypatch.setattr(doctor, 'talk_to_torch', trial)
    (found,) = [f for f in doctor.libraries() if f.name == 'numpy']
    assert found.problem == 'it fails: RuntimeError'
    assert numpy in found.mend


def test_openmim_without_pkg_resources(fake_environment, monkeypatch):
    monkeypatch.setattr(doctor, 'find_spec', lambda name: None)
    fake_environment(mim={'openmim': '0.3.9'}, setuptools={'setuptools': '82.0.1'})
    mim, setuptools = doctor.mim()
    assert not mim.problem
    assert setuptools.version == '82.0.1'
    assert setuptools.mend == 'pip install "setuptools>=77,<82"'
    # Nobody else needs it.
    fake_environment(setuptools={'setuptools': '82.0.1'})
    mim, setuptools = doctor.mim()
    assert 'for mim train' in mim.note
    assert not mim.problem + setuptools.problem


def test_exit_code_and_order(monkeypatch, capsys):
    good = Finding('torch', '2.13.0', 'as it should be')
    bad = Finding('mmcv', '-', problem='it is away', mend='pip install it')
    monkeypatch.setattr(doctor, 'examine', lambda: iter([good, bad]))
    assert doctor.main() == 1
    assert capsys.readouterr().out.splitlines() == [
        'torch                2.13.0         as it should be',
        'mmcv                 -              PROBLEM, see below',
        '',
        'mmcv: it is away',
        '    pip install it',
    ]
    monkeypatch.setattr(doctor, 'examine', lambda: iter([good]))
    assert doctor.main() == 0
    assert list(report([good]))[-1] == 'everything fits'


def test_release_numbers():
    assert release_of('2.13.0+cpu') == (2, 13, 0)
    assert release_of('2.0.0rc4') == (2, 0, 0)
    assert release_of('unknown') == (0,)


@pytest.mark.parametrize(
    ('file', 'stack'),
    [('tested.txt', environment.CLASSIC), ('forks.txt', environment.FORKS)],
)
def test_commands_name_the_tested_releases(repository, file, stack):
    pins = (repository / 'requirements' / file).read_text().splitlines()
    assert {environment.TORCH, *stack.values()} <= set(pins)
    if stack is environment.CLASSIC:
        assert {doctor.OPENMIM.strip('"'), doctor.SETUPTOOLS.strip('"')} <= set(pins)
