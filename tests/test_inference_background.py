"""A generator in a thread: order, bound, errors, and an end in every case."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import count
from threading import Event

import pytest

from mmdet_centermask.inference.background import in_background


def threads() -> int:
    return threading.active_count()


def test_order_is_kept_through_two_stages():
    doubled = in_background((2 * i for i in in_background(range(200), 3)), 1)
    assert list(doubled) == list(range(0, 400, 2))


def test_stages_run_side_by_side():
    """Each waits for something that only the other does meanwhile."""
    caller_is_busy, next_is_made = Event(), Event()

    def items() -> Iterator[int]:
        yield 0
        assert caller_is_busy.wait(10)
        next_is_made.set()
        yield 1

    stream = in_background(items(), 1)
    assert next(stream) == 0
    caller_is_busy.set()
    assert next_is_made.wait(10)
    assert list(stream) == [1]


def test_no_more_than_depth_items_wait():
    made = []

    def items() -> Iterator[int]:
        for i in count():
            made.append(i)
            yield i

    stream = in_background(items(), 3)
    assert next(stream) == 0
    threading.Event().wait(0.2)
    # One is taken, three wait, one is in the hand of the thread.
    assert len(made) <= 5
    stream.close()
    assert len(made) <= 6


def test_an_error_comes_after_the_items_before_it():
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError('frame 3')

    before = threads()
    seen = []
    with pytest.raises(ValueError, match='frame 3'):
        for item in in_background(in_background(items(), 2), 2):
            seen.append(item)
    assert seen == [1, 2]
    assert threads() == before


def test_stopping_early_closes_what_is_behind():
    closed = Event()

    def items() -> Iterator[int]:
        try:
            yield from count()
        finally:
            closed.set()

    before = threads()
    stream = in_background(in_background(items(), 1), 1)
    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    stream.close()
    assert closed.is_set()
    assert threads() == before


def test_an_error_of_the_caller_stops_the_threads():
    before = threads()
    stream = in_background(count(), 1)
    with pytest.raises(KeyboardInterrupt):
        for _ in stream:
            raise KeyboardInterrupt
    stream.close()
    assert threads() == before


def test_nothing_runs_before_the_first_request():
    before = threads()
    in_background(count(), 1).close()
    assert threads() == before
    assert list(in_background([], 1)) == []
