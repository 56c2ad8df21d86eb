"""Freed memory stays with the process: counted in the page faults of the kernel."""

from __future__ import annotations

import platform
import resource
import sys

import pytest
import torch

from mmdet_centermask.benchmark.new_process import in_new_process
from mmdet_centermask.speed import kept_memory
from mmdet_centermask.speed.kept_memory import keep_freed_memory

SIZE = 128 * 2**20  # more than glibc ever keeps by itself


def faults_of_later_maps(keep: bool) -> int:
    """Pages that the kernel has to map for eight maps like four that were freed."""
    agreed = keep and keep_freed_memory()
    assert agreed == keep
    faults = []
    for _ in range(12):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(SIZE, dtype=torch.uint8)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    # Small things settle in the first blocks that are free; then a map takes another.
    return sum(faults[4:])


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='an allocator of its own')
def test_later_maps_take_the_memory_of_the_first():
    given_back = in_new_process(faults_of_later_maps, False)
    kept = in_new_process(faults_of_later_maps, True)
    assert given_back >= 8 * SIZE // 2**21  # pages of 2 MB, where the kernel has those
    assert kept < given_back / 10


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, 'platform', 'darwin')
    monkeypatch.setattr(kept_memory, 'ctypes', None)  # not even looked at
    assert not keep_freed_memory()
