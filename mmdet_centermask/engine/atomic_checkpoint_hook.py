"""Checkpoints that are whole or not there, whenever the process dies."""

from __future__ import annotations

import os
from collections.abc import Container
from pathlib import Path
from typing import Any

from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook

UNFINISHED = '.unfinished'


@register_backend('atomic')
class AtomicBackend(LocalBackend):
    """Local files that appear under their name complete and on the disk."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write ``obj``; a process killed on the way leaves the old file as it was."""
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(path.name + UNFINISHED)
        with open(unfinished, 'wb') as file:
            file.write(obj)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in ``folder`` are on the disk too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """Stock hook that writes first, then points to it, then removes what is old.

    The stock hook removes the oldest checkpoint, then writes into the new file: killed
    in between, a run that keeps one checkpoint has none. Takes the stock arguments;
    ``backend_args`` other than None are used as they are.
    """

    def __init__(self, *args, backend_args: dict | None = None, **kwargs) -> None:
        super().__init__(*args, backend_args=backend_args, **kwargs)
        if backend_args is None and '://' not in str(self.out_dir):
            self.backend_args = dict(backend='atomic')

    def before_train(self, runner) -> None:
        super().before_train(runner)
        self.file_backend: Any = LateRemoval(self.file_backend)
        if is_main_process() and os.path.isdir(self.out_dir):
            for path in Path(self.out_dir).glob(f'*.pth{UNFINISHED}'):
                path.unlink()
        warn_of_split_updates(runner, self.interval, self.by_epoch)

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        super()._save_checkpoint_with_step(runner, step, meta)
        self.file_backend.flush(self._current_files())

    def _save_best_checkpoint(self, runner, metrics: dict) -> None:
        super()._save_best_checkpoint(runner, metrics)
        self.file_backend.flush(self._current_files())

    def _current_files(self) -> set[str | None]:
        """The last and the best checkpoints."""
        best = getattr(self, 'best_ckpt_path_dict', {}).values()
        return {self.last_ckpt, getattr(self, 'best_ckpt_path', None), *best}


class LateRemoval:
    """A file backend that removes files only when told that it is time."""

    def __init__(self, backend: LocalBackend) -> None:
        self._backend = backend
        self._waiting: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, filepath: str) -> None:
        """Remember ``filepath`` for :meth:`flush`."""
        self._waiting.append(filepath)

    def flush(self, current: Container[str | None]) -> None:
        """Remove what is remembered, except files written anew since."""
        for path in self._waiting:
            if path not in current:
                self._backend.remove(path)
        self._waiting.clear()


def warn_of_split_updates(runner, interval: int, by_epoch: bool) -> None:
    """Say when checkpoints fall between the parts of an accumulated gradient."""
    parts = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
    if not by_epoch and interval > 0 and interval % parts:
        runner.logger.warning(
            f'default_hooks.checkpoint.interval={interval} is no multiple of '
            f'optim_wrapper.accumulative_counts={parts}: a run resumed from such a '
            'checkpoint lacks the gradients gathered before it'
        )
