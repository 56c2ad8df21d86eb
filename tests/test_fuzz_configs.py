"""Configs with wrong types: it works all the same, or one error names the field.

`FUZZ_EXAMPLES=1000 pytest tests/test_fuzz_configs.py` looks at more of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from numbers import Number
from typing import Any

import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from mmdet.registry import MODELS
from tiny_centermask import batch_of, picture, tiny_config, tiny_model, total

from mmdet_centermask.build_errors import build_error
from mmdet_centermask.config_types import wrong_types
from mmdet_centermask.experiment import BUILD_ERRORS

WRONG = ('text', '3', 3, 0.5, None, [], ['a', 'b'], [1], {}, {'type': 'Nope'})


def kind(value: Any) -> type:
    """Values of one kind are not wrong types, though they may be wrong."""
    kinds = (str, Number, dict, list | tuple, type(None))
    return next(k for k in kinds if isinstance(value, k))


def leaves(node: Any, path: tuple = ()) -> Iterator[tuple]:
    """The path of every field below `node`, dicts themselves included."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for name, value in items:
        yield (*path, name)
        if isinstance(value, dict | list | tuple):
            yield from leaves(value, (*path, name))


CONFIG = tiny_config()
MAY_BE_NONE = (('data_preprocessor',), ('train_cfg',), ('test_cfg',))
PATHS = sorted(leaves(CONFIG), key=str)


def at(path: tuple, node: Any = CONFIG) -> Any:
    for name in path:
        node = node[name]
    return node


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
    is_class = isinstance(value, dict) and value
    assume(is_class or kind(value) is not kind(at(path)))
    # Right for who stacks pictures without it, does not train, does not predict.
    assume(value is not None or path not in MAY_BE_NONE)
    cfg = replaced(path, value)
    problems = list(wrong_types({'model': cfg}))
    if problems:
        where = '.'.join(map(str, ('model', *path)))
        # At the field itself, or at the row that it is in.
        assert all(where.startswith(p.split('=')[0]) for p in problems), problems
        return
    tiny_model()  # sets the scope and the seed
    try:
        model = MODELS.build(cfg)
        model.init_weights()
    except BUILD_ERRORS as error:
        sentence = build_error(error, {'model': cfg})
        assert '\n' not in sentence
        names = names_of(path, cfg) | ({value['type']} if is_class else set())
        assert any(name in sentence for name in names), (sentence, names)
        return
    inputs, samples = batch_of(model, picture(), training=True)
    assert torch.isfinite(total(model.train().loss(inputs, samples)))
    model.eval().predict(inputs, samples)


def test_the_right_config_has_no_wrong_types():
    assert list(wrong_types({'model': CONFIG})) == []
