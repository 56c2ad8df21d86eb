"""Iterate in a thread of its own, a bounded number of items ahead.

Nested, it is a pipeline: while the caller draws one batch, the network computes the
next and the one after is being decoded. OpenCV, NumPy and torch let other threads run
while they work.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import suppress
from queue import Empty, Queue
from threading import Event, Thread
from typing import Any, NamedTuple, TypeVar

T = TypeVar('T')


class End(NamedTuple):
    """What the thread says last."""

    error: BaseException | None = None


def in_background(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """The items in their order, made in a thread from the first request on.

    An error raised by `items` is raised here, after the items made before it. When
    the caller stops early, `items` is closed in its thread, and the thread has ended
    by the time this generator is closed.

    Args:
        items: Iterated in the thread, and closed there if it has a `close`.
        depth: At most this many finished items wait for the caller.
    """
    queue: Queue[T | End] = Queue(depth)
    stopped = Event()
    thread = Thread(target=fill, args=(items, queue, stopped), daemon=True)
    thread.start()
    try:
        while not isinstance(item := queue.get(), End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        # Room for the item that the thread may be holding out: it looks at the event
        # after each.
        with suppress(Empty):
            while True:
                queue.get_nowait()
        thread.join()


def fill(items: Iterable[Any], queue: Queue, stopped: Event) -> None:
    """Put the items into the queue, then an `End`; nothing more once stopped."""
    error = None
    iterator = iter(items)
    try:
        for item in iterator:
            queue.put(item)
            if stopped.is_set():
                return
    except BaseException as raised:
        error = raised
    finally:
        if hasattr(iterator, 'close'):
            iterator.close()
    if not stopped.is_set():
        queue.put(End(error))
