"""Files that run something where a reader lets them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import torch


class Payload:
    """Creates the folder `trace` where a reader runs what a pickle asks for."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def save_zip(content, path: Path) -> None:
    torch.save(content, path)


def save_legacy(content, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def save_pickle(content, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


def malicious_checkpoint(path: Path, save: Callable = save_zip) -> Path:
    """Write a checkpoint whose reading creates the folder that is returned."""
    trace = path.with_name(f'{path.name}.was-run')
    save({'state_dict': {'weight': torch.ones(1)}, 'meta': Payload(trace)}, path)
    return trace


def assert_it_bites(path: Path, trace: Path) -> None:
    """The file is no dud: an ordinary reader runs it."""
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists()
