"""The config that a checkpoint carries, read without running it.

mmengine keeps the config in every checkpoint as Python text, and its own inferencer
executes that text. A checkpoint may come from anywhere, so here it is parsed: it is a
list of assignments of plain values, and anything else is refused.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from ..config_path import find_config
from ..experiment import ExperimentError

# Where a module of a config may come from, as in `mmdet.DetDataPreprocessor`. mmengine
# resolves any other dotted type by import, be it a class or a function.
SCOPES = ('mmdet', 'mmengine', 'mmcv', 'mmpretrain')
NAMES = dict(inf=float('inf'), nan=float('nan'))


def config_of_checkpoint(checkpoint: dict, path: str) -> Config:
    """Return the config to build the model of `checkpoint` from.

    Args:
        checkpoint: Of mmengine, which holds the config's text, or of our converter,
            which holds the name of a config of this package.
        path: For the message.

    Raises:
        ExperimentError: It holds no config, or one that is not plain data.
    """
    meta = checkpoint.get('meta', {})
    runtime = checkpoint.get('message_hub', {}).get('runtime_info', {})
    text = runtime.get('cfg') or meta.get('cfg')
    if text:
        try:
            cfg = Config(parse_config(text))
            check_types(cfg)
        except (ValueError, TypeError) as error:
            raise ExperimentError(
                f'{path}: its config {error}; give the config file beside it'
            ) from error
        return cfg
    if meta.get('config'):
        return converted_config(meta)
    raise ExperimentError(f'{path}: holds no config; give the config file beside it')


def converted_config(meta: dict) -> Config:
    """The package's own config that `tools/convert_checkpoint.py` named.

    With what it found out about the file: how many classes, and which pixels.
    """
    cfg = Config.fromfile(find_config(meta['config']))
    if meta.get('num_classes') is not None:
        cfg.model.num_classes = meta['num_classes']
    cfg.model.data_preprocessor.update(meta.get('pixels', {}))
    return cfg


def parse_config(text: str) -> dict[str, Any]:
    """Values of `name = value` lines, where values are literals and `dict(...)`.

    Raises:
        ValueError: The text is not Python, or holds anything else; with the line.
        TypeError: A list as a key, or minus a text.
    """
    try:
        lines = ast.parse(text).body
    except SyntaxError as error:
        raise ValueError(f'is not Python in line {error.lineno}') from error
    values = {}
    for line in lines:
        match line:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                values[name] = plain_value(value)
            case _:
                raise ValueError(f'is not plain data in line {line.lineno}')
    return values


def plain_value(node: ast.expr) -> Any:
    """Evaluate a literal, or a `dict` with keywords only."""
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name) if name in NAMES:
            return NAMES[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -plain_value(operand)
        case ast.List(elts=items):
            return [plain_value(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(plain_value(item) for item in items)
        case ast.Set(elts=items):
            return {plain_value(item) for item in items}
        case ast.Dict(keys=keys, values=values) if None not in keys:
            pairs = zip(keys, values, strict=True)
            return {plain_value(k): plain_value(v) for k, v in pairs if k is not None}
        case ast.Call(func=ast.Name(id='dict'), args=[], keywords=words):
            if all(word.arg for word in words):
                return {str(word.arg): plain_value(word.value) for word in words}
    raise ValueError(f'is not plain data in line {node.lineno}')


def check_types(cfg: Config) -> None:
    """Refuse a `type` that is neither a registered name nor one with a known scope.

    Raises:
        ValueError: Names the type.
    """
    for name in walk_types(cfg.to_dict()):
        scope, dot, _ = name.rpartition('.')
        if dot and scope not in SCOPES:
            raise ValueError(f'has type={name!r}, which is no registered module')


def walk_types(value: Any) -> Iterator[str]:
    """Every string under a key `type`, however deep."""
    if isinstance(value, dict):
        if isinstance(value.get('type'), str):
            yield value['type']
        for part in value.values():
            yield from walk_types(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from walk_types(part)
