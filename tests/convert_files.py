"""Checkpoints for the converter's tests, through real files."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import torch
from convert_names import below, tagged

from mmdet_centermask.convert import Report, convert_checkpoint
from mmdet_centermask.convert.targets import build, shapes_of


def random_state(shapes: dict) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {n: torch.rand(tuple(s), generator=generator) for n, s in shapes.items()}


def backbone_state(names, arch: str, prefix: str = '') -> dict[str, torch.Tensor]:
    """A file of the backbone `arch`, with the names of a walk of `convert_names`."""
    own = shapes_of(build(dict(type='VoVNet', arch=arch)))
    state = tagged({o: own[n] for o, n in below(prefix, '', names).items()})
    first = next(iter(state))
    return state | random_state({first: state[first].shape})


def convert(folder: Path, state: dict, **options) -> tuple[Report, dict]:
    """Convert `state` in `folder`; give the report and what was written, if so."""
    torch.save({'model': state}, folder / 'src.pth')
    dst = folder / 'out' / 'dst.pth'
    report = convert_checkpoint(folder / 'src.pth', dst, **options)
    assert dst.exists() == report.fits == (report.written == dst)
    assert [p.name for p in folder.glob('out/*')] == ['dst.pth'] * report.fits
    return report, torch.load(dst, weights_only=True) if report.fits else {}


def load_tool(repository: Path) -> ModuleType:
    """The command, as a module."""
    path = repository / 'tools' / 'convert_checkpoint.py'
    spec = importlib.util.spec_from_file_location('convert_checkpoint', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
