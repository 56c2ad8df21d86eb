"""Configs by name: this package's, then those installed with MMDetection."""

from __future__ import annotations

from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from ..config_path import find_config


def find_any_config(name: str) -> str:
    """The path of a config file, by path or by name; ours come first.

    Raises:
        FileNotFoundError: One line with ``name`` and the names that resemble it.
    """
    try:
        return find_config(name)
    except FileNotFoundError as error:
        stem = Path(name).name.removesuffix('.py')
        theirs = mmdet_configs()
        if stem in theirs:
            return str(theirs[stem])
        similar = get_close_matches(stem, theirs, n=3)
        hint = f', where similar names are {", ".join(similar)}' if similar else ''
        raise FileNotFoundError(f'{error}, nor one of mmdet{hint}') from error


def mmdet_configs() -> dict[str, Path]:
    """The configs of the installed MMDetection, which pip puts beside its code."""
    spec = find_spec('mmdet')
    assert spec is not None and spec.origin is not None  # or we would not be here
    folder = Path(spec.origin).parent / '.mim' / 'configs'
    return {
        path.stem: path
        for path in sorted(folder.rglob('*.py'))
        if '_base_' not in path.parts
    }
