"""Is there an mmcv that mmdet can work with? Says so before mmdet is imported.

mmcv is the one requirement that pip cannot be trusted with: there is no wheel in
the index, and a build in pip's isolation sees no torch and silently leaves the
compiled operators out. mmdet then fails deep inside with a message about `_ext`.
"""

from __future__ import annotations

import sys
from importlib import import_module, metadata
from importlib.util import find_spec

TORCH = 'torch==2.13.0'
# What is installed under the same import names, with the releases that are tested.
CLASSIC = dict(mmengine='mmengine==0.10.7', mmcv='mmcv==2.1.0', mmdet='mmdet==3.3.0')
FORKS = dict(
    mmengine='onedl-mmengine==0.10.12',
    mmcv='onedl-mmcv==2.3.6',
    mmdet='onedl-mmdetection==3.5.1',
)
# mmcv's own ready-made wheels end with this torch; later ones mean a build.
LAST_TORCH_WITH_WHEELS = (2, 1)


def check_environment() -> None:
    """Raise ImportError (`name='mmcv'`) if mmcv is missing, bare or refused.

    The message is one sentence: what is wrong, and the command that mends it.
    """
    problem = mmcv_problem()
    if problem is not None:
        raise ImportError(
            f'mmdet_centermask cannot start: {problem}; mend it with: {mend_command()}',
            name='mmcv',
        )


def mmcv_problem() -> str | None:
    """Say what is wrong with mmcv, or return None. Imports mmcv, not mmdet.models."""
    # First, for its own plain message where it is missing.
    torch = import_module('torch')
    if find_spec('mmcv') is None:
        return 'mmcv is not installed'
    version = import_module('mmcv').__version__
    if find_spec('mmcv._ext') is None:
        return (
            f'mmcv {version} has no compiled operators '
            '(mmcv-lite, or built where torch was not installed)'
        )
    try:
        import_module('mmcv._ext')
    except ImportError as error:
        return (
            f'the operators of mmcv {version} do not load with '
            f'torch {torch.__version__} ({error})'
        )
    try:
        # Only mmdet's top level: it holds nothing but its check of versions.
        import_module('mmdet')
    except AssertionError as error:
        if 'MMCV' not in str(error):
            raise
        reason = str(error).rstrip('.').replace('. ', '; ')
        return f'mmdet refuses mmcv {version} ({reason})'
    return None


def mend_command() -> str:
    """Return the shell command that ends with a working mmcv."""
    steps = []
    if installed := distributions('mmcv'):
        steps.append(f'pip uninstall -y {" ".join(installed)}')
    stack = stack_in_use()
    if stack is CLASSIC and torch_release() <= LAST_TORCH_WITH_WHEELS:
        steps.append(f'mim install {stack["mmcv"]}')
    else:
        # Without the cache: pip may have kept a build that has no operators.
        steps.append('pip install "setuptools<82" wheel ninja psutil')
        steps.append(f'pip install --no-build-isolation --no-cache-dir {stack["mmcv"]}')
    return ' && '.join(steps)


def stack_in_use() -> dict[str, str]:
    """Return `FORKS` where mmdet is the maintained fork, else `CLASSIC`."""
    return FORKS if 'onedl-mmdetection' in distributions('mmdet') else CLASSIC


def distributions(module: str) -> list[str]:
    """Return the installed distributions that bring the top-level `module`."""
    return sorted(set(metadata.packages_distributions().get(module, [])))


def torch_release() -> tuple[int, int]:
    """Return (major, minor) of the installed torch without importing it.

    Where there is none, of the one that `TORCH` would install.
    """
    try:
        version = metadata.version('torch')
    except metadata.PackageNotFoundError:
        version = TORCH.split('==')[1]
    major, minor = version.split('.')[:2]
    return int(major), int(minor)


def doctor_is_called() -> bool:
    """Whether this process is `python -m mmdet_centermask.doctor`.

    Python imports a package before the module in it that `-m` names. The doctor has
    to answer where the package cannot be imported, so the package asks first.
    """
    # '-m' is all that sys.argv says until the module has been found.
    return sys.argv[:1] == ['-m'] and any(
        word.endswith('mmdet_centermask.doctor') for word in sys.orig_argv
    )
