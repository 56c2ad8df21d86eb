"""Configs with wrong types: it works all the same, or one error names the field.

`FUZZ_EXAMPLES=1000 pytest tests/test_fuzz_configs.py` looks at more of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from mmdet.registry import MODELS
from tiny_centermask import batch_of, picture, tiny_config, tiny_model, total

from mmdet_centermask.config_types import wrong_types

WRONG = ('text', '3', None, -1, 0, 2.5, True, [], ['a', 'b'], [1], {}, {'type': 'Nope'})
"""Values of every type; -1 and 0 are of the right one for most numbers."""


def leaves(node: Any, path: tuple = ()) -> Iterator[tuple]:
    """The path of every field below `node`, dicts themselves included."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for name, value in items:
        yield (*path, name)
        if isinstance(value, dict | list | tuple):
            yield from leaves(value, (*path, name))


CONFIG = tiny_config()
PATHS = sorted(leaves(CONFIG), key=str)


def replaced(path: tuple, value: Any) -> dict:
    cfg = deepcopy(CONFIG)
    node = cfg
    for name in path[:-1]:
        if isinstance(node[name], tuple):
            node[name] = list(node[name])
        node = node[name]
    node[path[-1]] = value
    return cfg


def names_of(path: tuple, cfg: dict) -> set[str]:
    """What a message may say to point at the field: itself, or its class."""
    names = {name for name in path if isinstance(name, str)}
    node: Any = cfg
    for name in path:
        if isinstance(node, dict) and isinstance(node.get('type'), str):
            names.add(node['type'])
        node = node[name]
    return names


@given(path=st.sampled_from(PATHS), value=st.sampled_from(WRONG))
def test_one_wrong_field(path, value):
    cfg = replaced(path, value)
    problems = list(wrong_types({'model': cfg}))
    if problems:
        where = '.'.join(map(str, ('model', *path)))
        # At the field itself, or at the row that it is in.
        assert all(where.startswith(p.split('=')[0]) for p in problems), problems
        return
    try:
        tiny_model()  # sets the scope and the seed
        model = MODELS.build(cfg)
        model.init_weights()
        inputs, samples = batch_of(model, picture(), training=True)
        loss = total(model.train().loss(inputs, samples))
        model.eval().predict(inputs, samples)
    except Exception as error:
        names = names_of(path, cfg)
        assert any(name in str(error) for name in names), (repr(error), names)
    else:
        assert torch.isfinite(loss)


def test_the_right_config_has_no_wrong_types():
    assert list(wrong_types({'model': CONFIG})) == []
