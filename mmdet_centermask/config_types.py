"""A config against the type hints of the classes that it names.

MMEngine hands the fields of a config to constructors as they are. A word where a
number belongs then fails somewhere in the depths, or in the first step of training,
with a message that names neither. The constructors say what they take; so it can be
compared before anything is built.
"""

from __future__ import annotations

import collections.abc as abc
import functools
import inspect
import re
import reprlib
from collections.abc import Iterator, Mapping
from numbers import Number
from types import NoneType, UnionType
from typing import Any, Literal, Optional, Union, get_args, get_origin, get_type_hints

from mmcv.transforms import BaseTransform
from mmdet import registry

# Where the names behind `type` are looked up.
REGISTRIES = (
    registry.MODELS,
    registry.TASK_UTILS,
    registry.DATASETS,
    registry.TRANSFORMS,
    registry.DATA_SAMPLERS,
    registry.OPTIM_WRAPPERS,
    registry.OPTIMIZERS,
    registry.PARAM_SCHEDULERS,
    registry.HOOKS,
    registry.LOOPS,
    registry.METRICS,
    registry.VISUALIZERS,
)
ROWS = (list, tuple, set, abc.Iterable, abc.Collection, abc.Sequence)


def wrong_types(node: Any, path: str = '') -> Iterator[str]:
    """Yield a sentence for each field whose value its class does not take.

    Only what type hints and defaults rule out: fields without either, classes that no
    registry has and hints that are no plain types are passed over.

    Args:
        node: A config or a part of one.
        path: The dotted name of that part.
    """
    if isinstance(node, Mapping):
        owner = class_of(node.get('type')) or dict
        hints = hints_of(owner)
        for name, value in node.items():
            where = f'{path}.{name}' if path else str(name)
            if name in hints and not fits(value, hints[name]):
                if issubclass(owner, BaseTransform) and is_row_of(value, Number):
                    continue  # transforms take one number or one for each channel
                yield (
                    f'{where}={reprlib.repr(value)}: '
                    f'{owner.__name__} takes {spelled(hints[name])}'
                )
            else:
                yield from wrong_types(value, where)
    elif isinstance(node, list | tuple):
        for i, item in enumerate(node):
            yield from wrong_types(item, f'{path}.{i}')


def class_of(name: Any) -> type | None:
    """The class that `type=name` stands for, if a registry knows it."""
    if inspect.isclass(name):
        return name
    if not isinstance(name, str):
        return None
    found = (place.get(name) for place in REGISTRIES)
    return next((entry for entry in found if inspect.isclass(entry)), None)


@functools.cache
def hints_of(owner: type) -> dict[str, Any]:
    """Type hints of the constructor's arguments, those of its base classes too.

    Where several classes have an argument, whatever fits one of them will do: hints
    are no contract in these libraries. So will None where it is the default.
    """
    hints: dict[str, Any] = {}
    for base in owner.__mro__:
        constructor = vars(base).get('__init__')
        if not inspect.isfunction(constructor):
            continue
        try:
            found = get_type_hints(constructor)
        except (NameError, TypeError, AttributeError):
            continue  # a hint that only a type checker can resolve
        parameters = inspect.signature(constructor).parameters
        is_loss = 'loss_weight' in parameters
        for name, parameter in parameters.items():
            hint = found.get(name, hint_of_default(parameter.default, is_loss))
            if parameter.default is None:
                hint = Optional[hint]  # noqa: UP045, `|` does not take every hint
            known = hints.get(name, hint)
            hints[name] = Union[known, hint]  # noqa: UP007
    hints.pop('type', None)  # the name of the class, whatever an argument is called
    return hints


def hint_of_default(default: Any, is_loss: bool) -> Any:
    """What an argument without a hint takes; losses have only such ones.

    A number where the default has a point, or a switch in a loss. Other defaults say
    less: 1 may stand for (1, 1). Outside losses, None switches a number off.
    """
    if isinstance(default, float):
        return float if is_loss else Optional[float]  # noqa: UP045
    return bool if is_loss and isinstance(default, bool) else Any


def fits(value: Any, hint: Any) -> bool:
    """Whether `value` is of a kind that `hint` takes.

    Only kinds are compared (text, number, dict, row, None), because the hints of
    these libraries are no contract in detail: what is called a whole number may take
    a fraction, a dict also a row of them, and rows may hold rows.
    """
    origin, arguments = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, UnionType):
        return any(fits(value, choice) for choice in arguments)
    if origin is Literal:
        return any(fits(value, type(word)) for word in arguments)
    if not inspect.isclass(origin):
        return True
    if origin is NoneType:
        return value is None
    if origin is str:
        return isinstance(value, str)
    if issubclass(origin, Number):
        return isinstance(value, Number)
    if issubclass(origin, abc.Mapping):
        return isinstance(value, Mapping) or is_row_of(value, Mapping)
    if origin is tuple and is_of_fixed_length(arguments) and value in ([], ()):
        return False
    if origin in ROWS:
        return fits_row(value, [item for item in arguments if item is not Ellipsis])
    return True


def is_of_fixed_length(arguments: tuple[Any, ...]) -> bool:
    """Whether a tuple's hint has these arguments, one for each of its items."""
    return bool(arguments) and Ellipsis not in arguments


def fits_row(value: Any, items: list[Any]) -> bool:
    """Whether `value` is a row, and texts, None and empty rows in it fit `items`."""
    if isinstance(value, str):
        return takes('', items)
    return isinstance(value, list | tuple | set | range) and all(
        takes(item, items)
        for item in value
        if item is None or isinstance(item, str) or item in ([], ())
    )


def takes(item: Any, hints: list[Any]) -> bool:
    """Whether `item` may be in a row of these hints; without hints anything may."""
    return not hints or any(fits(item, hint) for hint in hints)


def is_row_of(value: Any, kind: type) -> bool:
    """Whether `value` is a row that is not empty, of nothing but `kind`."""
    return (
        isinstance(value, list | tuple)
        and len(value) > 0
        and all(isinstance(item, kind) for item in value)
    )


def spelled(hint: Any) -> str:
    """`typing.Optional[mmengine.config.ConfigDict]` -> `Optional[ConfigDict]`."""
    text = hint.__name__ if inspect.isclass(hint) and not get_args(hint) else str(hint)
    return re.sub(r'[\w.]+\.(\w+)', r'\1', text)
