"""Which part of a config a failed build is about.

MMEngine builds a model from the outside in, and what a constructor raises says neither
whose it is nor which field of the config it got: `AssertionError()`, as often as not.
The traceback knows.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any


def build_error(error: Exception, cfg: Mapping[str, Any]) -> str:
    """Say in one line which class could not be built, from where in the config.

    Args:
        error: What building raised.
        cfg: What was built.

    Returns:
        Such as `model.bbox_head: FCOSHead cannot be built: AssertionError: conv_bias ==
        'auto' or isinstance(conv_bias, bool) (anchor_free_head.py, line 96)`. Without
        the part before the colon where no class of `cfg` was being built.
    """
    places = dict(typed_parts(cfg))
    owner = last_constructed(error, places)
    where = f'{places[owner]}: {owner} cannot be built: ' if owner else ''
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = ' '.join(str(error).split()) or (last.line or '').removeprefix('assert ')
    place = f'({Path(last.filename).name}, line {last.lineno})'
    return f'{where}{type(error).__name__}: {text} {place}'


def typed_parts(node: Any, path: str = '') -> Iterator[tuple[str, str]]:
    """Yield (`type`, dotted path) of every part that names a class, innermost first."""
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(node, Mapping):
        parts = node.items()
    elif isinstance(node, list | tuple):
        parts = enumerate(node)
    for name, value in parts:
        yield from typed_parts(value, f'{path}.{name}' if path else str(name))
    if isinstance(node, Mapping) and isinstance(node.get('type'), str):
        yield node['type'], path


def last_constructed(error: Exception, names: Mapping[str, str]) -> str | None:
    """The class, one of `names`, whose constructor was under way; the innermost."""
    found = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == '__init__' and 'self' in frame.f_locals:
            name = type(frame.f_locals['self']).__name__
            found = name if name in names else found
    return found
