"""An object that lives in a process of its own and waits for its turns.

What one way of working does to its process, such as keeping freed memory, so stays
away from the others: each is as fast as it is to somebody who runs it alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from .new_process import OwnProcess

Result = TypeVar('Result')

# Of this process: one at most.
_objects: list[Any] = []


class Resident:
    """What ``make(*args)`` returns, kept in a new process; close it when done."""

    def __init__(self, make: Callable[..., Any], *args: Any) -> None:
        self._process = OwnProcess()
        self._process.run(_move_in, make, args)

    def call(self, function: Callable[..., Result], *args: Any) -> Result:
        """``function(object, *args)`` there; the result travels, the object stays."""
        return self._process.run(_call, function, args)

    def close(self) -> None:
        self._process.close()


def _move_in(make: Callable[..., Any], args: tuple) -> None:
    _objects.append(make(*args))


def _call(function: Callable[..., Result], args: tuple) -> Result:
    return function(_objects[0], *args)
