"""Stops a step that would ruin the weights, and keeps what is needed to find out why.

A loss that is NaN or infinite turns every weight into NaN in one step, and the run is
lost without a word. This hook looks before the backward pass.
"""

from __future__ import annotations

import json
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.dist import all_reduce, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from .saved_batch import SavedBatch, save_batch

ACTIONS = ('skip', 'stop')
# A batch with its weights takes as much as a checkpoint; later ones add little.
MAX_FILES = 5


class NonFiniteError(RuntimeError):
    """Training ended because a loss or a gradient was not finite."""


@HOOKS.register_module()
class NonFiniteGuardHook(Hook):
    """Leaves the optimizer step out where a loss or a gradient is not finite.

    Whatever the optimizer wrapper is, a step goes through its ``update_params`` and
    ``step``; both are guarded on the object. The processes of a distributed run
    leave out the same steps. The running statistics of norm layers, which the forward
    pass has changed by then, are set back. With ``accumulative_counts`` the gradients
    gathered for that step so far are dropped too.

    A process that saw it appends a line to ``non_finite.jsonl`` in the work directory:
    iteration, learning rate, every loss, ids and paths of the pictures. It saves batch
    and weights as ``non_finite_iter_N.pth`` for ``tools/replay_batch.py``.

    Gradients of float16 under a loss scale overflow now and then on purpose; they are
    left to the scaler.

    Args:
        action: ``'skip'`` goes on with the next batch, ``'stop'`` ends the run.
        max_in_a_row: With ``'skip'``, so many without a good step between them end
            the run all the same.

    Raises:
        ValueError: ``action`` is unknown.
    """

    # The first to see the losses: what it takes out, no other hook logs or averages.
    priority = 'HIGHEST'

    def __init__(self, action: str = 'skip', max_in_a_row: int = 10) -> None:
        if action not in ACTIONS:
            raise ValueError(
                f'NonFiniteGuardHook: action={action!r} is unknown, choose one of '
                f'{", ".join(ACTIONS)}'
            )
        self.action = action
        self.max_in_a_row = max_in_a_row
        self._problem: str | None = None
        self._in_a_row = 0
        self._files = 0

    def before_train(self, runner) -> None:
        """Put the guards in."""
        self._norms = [m for m in runner.model.modules() if isinstance(m, _BatchNorm)]
        wrapper = runner.optim_wrapper
        if not isinstance(wrapper, OptimWrapper):
            runner.logger.warning(
                f'{type(wrapper).__name__} has no single step to guard: losses that '
                'are not finite will go unnoticed'
            )
            return
        update_params, step = wrapper.update_params, wrapper.step

        def guarded_update(loss: Tensor, **kwargs) -> None:
            if self._finite('loss', [loss]):
                update_params(loss, **kwargs)
            else:
                drop_step(wrapper)

        # Schedulers look for the mark that they leave on the function.
        @wraps(step)
        def guarded_step(**kwargs) -> None:
            if has_loss_scale(wrapper) or self._finite('gradient', gradients(wrapper)):
                step(**kwargs)

        wrapper.update_params, wrapper.step = guarded_update, guarded_step

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Remember the statistics that the forward pass is going to change."""
        self._problem = None
        learning = [b for m in self._norms if m.training for b in m.buffers()]
        self._statistics = [(buffer, buffer.clone()) for buffer in learning]

    def after_train_iter(
        self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None
    ) -> None:
        """Report a step that was left out, and end the run or not."""
        if self._problem is None:
            self._in_a_row = 0
            return
        for buffer, before in self._statistics:
            buffer.copy_(before)
        self._in_a_row += 1
        losses = {name: value.item() for name, value in (outputs or {}).items()}
        if outputs:
            # One NaN would hide the smoothed losses of the next 50 lines of the log.
            outputs.clear()
        message = f'{self._problem} not finite in iteration {runner.iter + 1}'
        # Where parameters are sharded, the processes gather them together.
        weights = unwrapped(runner.model).state_dict()
        if self._seen_here:
            message += self._report(runner, data_batch, losses, weights)
        if self.action == 'stop' or self._in_a_row >= self.max_in_a_row:
            raise NonFiniteError(
                f'{message}; {self._in_a_row} in a row, training stops'
            )
        runner.logger.warning(f'{message}. The step is left out')

    def _finite(self, what: str, tensors: list[Tensor]) -> bool:
        """Whether ``tensors`` are finite in every process."""
        # A sum is finite if and only if all are, short of an overflow.
        sums = [t.detach().sum().float() for t in tensors]
        finite = torch.stack(sums).isfinite().all() if sums else torch.tensor(True)
        verdict = finite.float()
        if get_world_size() > 1:
            all_reduce(verdict, 'min')
        if bool(verdict):
            return True
        self._problem, self._seen_here = what, not bool(finite)
        return False

    def _report(
        self,
        runner,
        data_batch: Any,
        losses: dict[str, float],
        weights: dict[str, Tensor],
    ) -> str:
        """Write down what happened here; return the end of the message."""
        rank = f'_rank_{get_rank()}' if get_rank() else ''
        pictures = pictures_of(data_batch)
        folder = Path(runner.work_dir)
        entry = dict(
            iteration=runner.iter + 1,
            problem=self._problem,
            # Of the first group of parameters, as in the log.
            lr={name: r[0] for name, r in runner.optim_wrapper.get_lr().items()},
            losses=losses,
            pictures=pictures,
        )
        if self._files < MAX_FILES:
            self._files += 1
            path = folder / f'non_finite_iter_{runner.iter + 1}{rank}.pth'
            entry['batch'] = path.name
            saved = SavedBatch(
                data_batch=data_batch,
                state_dict=weights,
                losses=losses,
                seed=runner.seed,
                rank=get_rank(),
                iteration=runner.iter,
            )
            save_batch(path, saved)
        log = folder / f'non_finite{rank}.jsonl'
        with open(log, 'a', encoding='utf-8') as file:
            file.write(json.dumps(entry) + '\n')
        ids = ', '.join(str(picture['img_id']) for picture in pictures)
        return f' (pictures {ids}; {log} has the losses, the batch is saved)'


def drop_step(wrapper: OptimWrapper) -> None:
    """Count an iteration without its gradients, or any gathered before."""
    wrapper.zero_grad()
    wrapper._inner_count += 1


def has_loss_scale(wrapper: OptimWrapper) -> bool:
    """Whether a loss scaler looks after the gradients."""
    scaler = getattr(wrapper, 'loss_scaler', None)
    return scaler is not None and scaler.is_enabled()


def gradients(wrapper: OptimWrapper) -> list[Tensor]:
    """The gradients that a step would use."""
    parameters = [p for group in wrapper.param_groups for p in group['params']]
    return [p.grad for p in parameters if p.grad is not None]


def unwrapped(model: nn.Module) -> nn.Module:
    """The module whose state dict has the names of the model's own."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def pictures_of(data_batch: Any) -> list[dict[str, Any]]:
    """Ids and paths of the pictures in a batch of mmdet's data loaders."""
    samples = data_batch.get('data_samples', []) if isinstance(data_batch, dict) else []
    return [
        {key: sample.metainfo.get(key) for key in ('img_id', 'img_path')}
        for sample in samples
    ]
