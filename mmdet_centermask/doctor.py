"""What is installed, what does not fit, and the command that mends it.

    python -m mmdet_centermask.doctor

Answers where torch, mmcv or mmdet are missing too, when the package itself cannot
be imported. Leaves with 1 if something has to be mended.
"""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import NamedTuple

from . import __version__
from .environment import (
    FORKS,
    TORCH,
    distributions,
    mend_command,
    mmcv_problem,
    stack_in_use,
    torch_release,
)

OPENMIM = '"openmim==0.3.9"'
SETUPTOOLS = '"setuptools>=77,<82"'
HEADLESS = 'opencv-python-headless'
Release = tuple[int, ...]
ANY = ((0,), (9999,))


class Finding(NamedTuple):
    """One line of the report."""

    name: str
    version: str = '-'
    note: str = ''

    problem: str = ''
    """What is wrong, for a person; empty if nothing is."""

    mend: str = ''
    """The shell command that ends the problem."""


def main() -> int:
    """Print the report; return 1 if something has to be mended."""
    findings = list(examine())
    print('\n'.join(report(findings)))
    return int(any(finding.problem for finding in findings))


def examine() -> Iterator[Finding]:
    """Look at everything, in the order in which it has to be mended."""
    findings = [python(), *libraries(), opencv(), mmcv(), *mim()]
    yield from findings
    if not any(finding.problem for finding in findings):
        yield package()


def report(findings: Iterable[Finding]) -> Iterator[str]:
    """A line for each finding, then each problem with its command."""
    problems = []
    for finding in findings:
        note = 'PROBLEM, see below' if finding.problem else finding.note
        yield f'{finding.name:<20} {finding.version:<14} {note}'.rstrip()
        if finding.problem:
            problems.append(finding)
    yield ''
    if not problems:
        yield 'everything fits'
    for finding in problems:
        yield f'{finding.name}: {finding.problem}'
        if finding.mend:
            yield f'    {finding.mend}'


def python() -> Finding:
    """The interpreter, whose release pip has checked already."""
    return Finding('python', platform.python_version(), sys.executable)


def libraries() -> Iterator[Finding]:
    """What pip fetches by itself."""
    stack = stack_in_use()
    of_mmdet = ((3, 5), (3, 6)) if stack is FORKS else ((3, 3), (3, 4))
    # Before 2.3, torch was built for NumPy 1 and does not talk to NumPy 2.
    numpy = '"numpy<2"' if torch_release() < (2, 3) else '"numpy>=2"'
    yield library('torch', TORCH, ((2, 1), (3,)), 'torch')
    yield library('numpy', numpy, ANY, talk_to_torch)
    yield library('mmengine', stack['mmengine'], ((0, 10, 3), (1,)), 'mmengine')
    # Not tried here: the first thing it does is to look at mmcv.
    yield library('mmdet', stack['mmdet'], of_mmdet)
    yield library(
        'pycocotools', '"pycocotools>=2.0.7"', ((2, 0, 7), (3,)), 'pycocotools.mask'
    )


def library(
    module: str,
    requirement: str,
    releases: tuple[Release, Release],
    trial: str | Callable[[], object] | None = None,
) -> Finding:
    """Look for a library, compare its release, try it.

    Args:
        module: Its import name.
        requirement: What to give pip.
        releases: The first that fits, and the first that does not any more.
        trial: A module to import or a function to call; what that raises is a
            problem.
    """
    found = distributions(module)
    mend = f'pip install {requirement}'
    if not found and find_spec(module) is None:
        return Finding(module, problem='it is not installed', mend=mend)
    name, version = found[0] if found else module, version_of(found)
    if len(found) > 1:
        problem = f'{" and ".join(found)} are both installed, into the same files'
        mend = f'pip uninstall -y {" ".join(found)} && {mend}'
        return Finding(name, version, problem=problem, mend=mend)
    first, below = releases
    if found and not first <= release_of(version) < below:
        problem = f'{dotted(first)} or later is needed, before {dotted(below)}'
        return Finding(name, version, problem=problem, mend=mend)
    if trial is not None and (failure := failure_of(trial)):
        # As it is installed already, pip would not touch it otherwise.
        mend = mend.replace('install', 'install --force-reinstall --no-deps')
        return Finding(name, version, problem=f'it fails: {failure}', mend=mend)
    return Finding(name, version)


def talk_to_torch() -> None:
    """Hand a tensor to NumPy; fails where they were not built for each other."""
    if find_spec('torch') is not None:
        import_module('torch').zeros(1).numpy()


def opencv() -> Finding:
    """OpenCV, of which several distributions may lie over each other."""
    found = distributions('cv2')
    if not found and find_spec('cv2') is None:
        mend = 'pip install opencv-python'
        return Finding('opencv', problem='it is not installed', mend=mend)
    version = version_of(found)
    if failure := failure_of('cv2'):
        # Mostly libGL, which a machine without a screen does not have.
        mend = f'pip install --no-deps --force-reinstall {HEADLESS}'
        return Finding('opencv', version, problem=f'it fails: {failure}', mend=mend)
    return Finding('opencv', version, ', '.join(found))


def mmcv() -> Finding:
    """mmcv, and whether its operators load and mmdet takes it."""
    found = distributions('mmcv')
    name, version = ' + '.join(found) or 'mmcv', version_of(found)
    if find_spec('torch') is None:
        problem = None if found else 'it is not installed'
    else:
        try:
            problem = mmcv_problem()
        except Exception as error:  # of another library, which has its own line
            return Finding(name, version, f'not tried: {one_line(error)}')
    if problem is None:
        return Finding(name, version, 'its operators load')
    return Finding(name, version, problem=problem, mend=mend_command())


def mim() -> Iterator[Finding]:
    """openmim, which only its own commands need, and what it needs."""
    tools = distributions('setuptools')
    has_resources = find_spec('pkg_resources') is not None
    version = version_of(tools)
    note = 'has pkg_resources' if has_resources else 'no pkg_resources'
    found = distributions('mim')
    if not found:
        optional = f'not installed; for mim train: pip install {OPENMIM} {SETUPTOOLS}'
        yield Finding('openmim', note=optional)
    else:
        yield Finding(found[0], version_of(found))
    if 'openmim' in found and not has_resources:
        problem = 'it has no pkg_resources, which openmim imports'
        mend = f'pip install {SETUPTOOLS}'
        yield Finding('setuptools', version, problem=problem, mend=mend)
    else:
        yield Finding('setuptools', version, note)


def package() -> Finding:
    """This package itself, once all it needs is there."""
    if failure := failure_of('mmdet_centermask.models'):
        return Finding(
            'mmdet_centermask', __version__, problem=f'it cannot be imported: {failure}'
        )
    return Finding('mmdet_centermask', __version__, 'its modules are registered')


def failure_of(trial: str | Callable[[], object]) -> str:
    """Import or call; return what it raised, in one line, or ''."""
    try:
        import_module(trial) if isinstance(trial, str) else trial()
    except Exception as error:  # a broken installation raises anything
        return one_line(error)
    return ''


def one_line(error: Exception) -> str:
    """The error's first line, or its type."""
    return str(error).strip().split('\n')[0] or type(error).__name__


def version_of(found: list[str]) -> str:
    """The version of the first distribution; `'-'` where there is none."""
    return metadata.version(found[0]) if found else '-'


def release_of(version: str) -> Release:
    """`'2.13.0+cpu'` -> `(2, 13, 0)`."""
    found = re.match(r'\d+(\.\d+)*', version)
    return tuple(map(int, found[0].split('.'))) if found else (0,)


def dotted(release: Release) -> str:
    return '.'.join(map(str, release))


if __name__ == '__main__':
    sys.exit(main())
