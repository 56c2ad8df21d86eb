"""What is built is what users get: a wheel that mim trains and tests from anywhere."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest

QUICKSTART = 'centermask-lite_v19-slim-dw_fpn_quickstart.py'
FROM_MIM = (
    'model-index.yml',
    'tools/train.py',
    'tools/test.py',
    f'configs/quickstart/{QUICKSTART}',
    'configs/_base_/default_runtime.py',
)


def run(*command, cwd, **env) -> str:
    """Run a command outside the working tree's reach; return what it printed."""
    clean = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**clean, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f'{command}\n{done.stdout[-5000:]}'
    return done.stdout


@pytest.fixture(scope='module')
def clean_copy(repository, tmp_path_factory) -> Path:
    """The files git has or would take, and nothing that a build left behind."""
    if shutil.which('git') is None or not (repository / '.git').exists():
        pytest.skip('needs a git checkout, to tell sources from leftovers')
    listing = subprocess.run(
        ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
        cwd=repository,
        check=True,
        capture_output=True,
        text=True,
    )
    target = tmp_path_factory.mktemp('copy')
    for name in filter(None, listing.stdout.split('\0')):
        source = repository / name
        if source.is_symlink() or source.exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name, follow_symlinks=False)
    return target


@pytest.fixture(scope='module')
def distributions(clean_copy, tmp_path_factory) -> tuple[Path, Path]:
    """(wheel, sdist) of the clean copy."""
    out = tmp_path_factory.mktemp('dist')
    build = 'from setuptools.build_meta import {0} as f; import sys; f(sys.argv[1])'
    for kind in ('build_wheel', 'build_sdist'):
        run(sys.executable, '-c', build.format(kind), out, cwd=clean_copy)
    (wheel,), (sdist,) = out.glob('*.whl'), out.glob('*.tar.gz')
    return wheel, sdist


@pytest.fixture(scope='module')
def installed(distributions, tmp_path_factory) -> Path:
    """The Python of a fresh environment that has the wheel installed.

    A .pth file lends it the stack of the environment the tests run in, which would
    take minutes to install; its own site-packages come first.
    """
    folder = tmp_path_factory.mktemp('fresh') / 'venv'
    run(sys.executable, '-m', 'venv', '--without-pip', folder, cwd=folder.parent)
    python = folder / 'bin' / 'python'
    purelib = run(
        python,
        '-c',
        "import sysconfig; print(sysconfig.get_path('purelib'), end='')",
        cwd=folder,
    )
    # `addsitedir`, not a bare path: the lending environment may itself borrow.
    lender = sysconfig.get_path('purelib')
    line = f'import site; site.addsitedir({lender!r})\n'
    (Path(purelib) / 'stack.pth').write_text(line)
    # With its requirements, which pip must find met by what is lent: --no-index.
    pip = (sys.executable, '-m', 'pip', '--python', python, 'install', '--no-index')
    run(*pip, '--ignore-installed', '--no-deps', distributions[0], cwd=folder)
    run(*pip, distributions[0], cwd=folder)
    return python


@pytest.fixture(scope='module')
def data(repository, tmp_path_factory) -> Path:
    """A handful of small quickstart pictures."""
    out = tmp_path_factory.mktemp('data') / 'quickstart'
    tool = repository / 'tools' / 'make_quickstart_data.py'
    sizes = ('--train', '6', '--val', '3', '--size', '96')
    run(sys.executable, tool, out, *sizes, cwd=out.parent)
    return out


def data_options(data: Path, *splits: str) -> list[str]:
    options = [f'{split}_dataloader.dataset.data_root={data}/' for split in splits]
    evaluators = [split for split in splits if split != 'train']
    return options + [
        f'{split}_evaluator.ann_file={data}/annotations/val.json'
        for split in evaluators
    ]


@pytest.mark.slow
def test_wheel_and_sdist_carry_real_files_for_mim(distributions, clean_copy):
    wheel, sdist = distributions
    wanted = {f'mmdet_centermask/.mim/{name}' for name in FROM_MIM}
    # Compared with the sources by content, so that no symlink passes for a file.
    sources = {name: (clean_copy / name).read_bytes() for name in wanted}

    with ZipFile(wheel) as archive:
        assert {name: archive.read(name) for name in wanted} == sources

    root = sdist.name.removesuffix('.tar.gz')
    with tarfile.open(sdist) as archive:
        for name in wanted:
            member = archive.getmember(f'{root}/{name}')
            assert member.isfile(), name
            assert archive.extractfile(member).read() == sources[name]


@pytest.mark.slow
def test_every_config_metafile_and_tool_is_in_the_wheel(distributions, clean_copy):
    with ZipFile(distributions[0]) as archive:
        packed = set(archive.namelist())
    for folder in ('configs', 'tools'):
        files = (clean_copy / folder).rglob('*.*')
        for path in (p for p in files if p.suffix in ('.py', '.yml')):
            name = path.relative_to(clean_copy).as_posix()
            assert f'mmdet_centermask/.mim/{name}' in packed
    # What the package itself reads: templates and the like.
    for path in (clean_copy / 'mmdet_centermask').rglob('*.*'):
        if path.suffix in ('.html', '.css'):
            assert path.relative_to(clean_copy).as_posix() in packed
    assert not [name for name in packed if name.startswith(('tests/', 'tools/'))]


@pytest.mark.slow
def test_wheel_can_be_built_from_the_sdist(distributions, tmp_path):
    wheel, sdist = distributions
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter='data')
    unpacked = tmp_path / sdist.name.removesuffix('.tar.gz')
    build = 'from setuptools.build_meta import build_wheel; build_wheel("..")'
    run(sys.executable, '-c', build, cwd=unpacked)
    with ZipFile(wheel) as first, ZipFile(tmp_path / wheel.name) as second:
        assert sorted(first.namelist()) == sorted(second.namelist())


@pytest.mark.slow
def test_installed_wheel_trains_resumes_and_tests_from_another_folder(
    installed, data, tmp_path
):
    mim = (installed, '-m', 'mim')
    code = 'import mmdet_centermask; print(mmdet_centermask.__file__)'
    imported = run(installed, '-c', code, cwd=tmp_path).splitlines()[-1]
    assert Path(imported).is_relative_to(installed.parent.parent)

    def train(iterations: int, *flags: str) -> str:
        return run(
            *(*mim, 'train', 'mmdet_centermask', QUICKSTART, '--work-dir', 'run'),
            *(*flags, '--cfg-options', *data_options(data, 'train', 'val')),
            f'train_cfg.max_iters={iterations}',
            'train_cfg.val_interval=100',
            'train_dataloader.batch_size=2',
            'default_hooks.logger.interval=1',
            cwd=tmp_path,
        )

    assert 'Iter(train) [2/2]' in train(2)
    resumed = train(3, '--resume')
    assert 'Iter(train) [3/3]' in resumed
    assert 'Iter(train) [2/3]' not in resumed
    checkpoint = (tmp_path / 'run' / 'last_checkpoint').read_text()
    assert Path(checkpoint) == tmp_path / 'run' / 'iter_3.pth'
    assert Path(checkpoint).is_file()

    tested = run(
        *(*mim, 'test', 'mmdet_centermask', QUICKSTART, '--checkpoint', checkpoint),
        *('--work-dir', 'test', '--out', 'predictions.pkl'),
        *('--show-dir', tmp_path / 'pictures', '--cfg-options'),
        *data_options(data, 'test'),
        # Three iterations are sure of nothing, and COCO skips an empty result.
        'model.test_cfg.bbox.score_thr=0.0',
        cwd=tmp_path,
    )
    assert 'Testing finished successfully' in tested
    (metrics,) = (tmp_path / 'test').glob('*/*.json')
    values = json.loads(metrics.read_text())
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= values.keys()
    assert (tmp_path / 'predictions.pkl').stat().st_size > 0
    assert len(list((tmp_path / 'pictures').iterdir())) == 3

    found = run(
        *(*mim, 'run', 'mmdet_centermask', 'infer', checkpoint, data / 'val'),
        *('--out-dir', 'found', '--score-thr', '0'),
        cwd=tmp_path,
    )
    assert 'in 3 pictures' in found
    assert len(list((tmp_path / 'found' / 'overlays').iterdir())) == 3


@pytest.mark.slow
def test_mim_searches_and_runs_the_installed_wheel(installed, tmp_path):
    mim = (installed, '-m', 'mim')
    found = run(*mim, 'search', 'mmdet_centermask', cwd=tmp_path, PAGER='cat')
    assert 'config id: centermask_v39_fpn_ms-3x_coco' in found
    # `mim run … -h` would be refused: mim knows only its own packages there.
    command = ('run', 'mmdet_centermask', 'make_quickstart_data', 'drawn')
    run(*mim, *command, '--train', '2', '--val', '2', '--size', '64', cwd=tmp_path)
    assert (tmp_path / 'drawn' / 'annotations' / 'val.json').is_file()
