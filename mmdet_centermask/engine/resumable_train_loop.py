"""A training loop that goes on after an interruption as if there had been none."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, repeat
from typing import Any

import torch
from mmdet.registry import LOOPS
from mmdet.utils import ConfigType
from mmengine.dist import get_rank
from mmengine.runner import IterBasedTrainLoop

from .numbered_batch_sampler import number_batches, seed_by_place
from .randomness import ITERATION, seed_randomness


@LOOPS.register_module()
class ResumableTrainLoop(IterBasedTrainLoop):
    """Stock loop over iterations, each of which depends on seed and number alone.

    Two things are added. The random numbers of an iteration and of a picture's
    augmentation are seeded by their number. On resuming, the batches of the past
    are drawn but not loaded: the stock loop reads every picture again, which takes
    hours late in a long run.

    Args:
        runner: The runner.
        dataloader: Config of the training dataloader. Only with mmengine's
            ``InfiniteSampler`` are past batches left unread.
        kwargs: The arguments of ``IterBasedTrainLoop``.

    Raises:
        TypeError: ``dataloader`` is an object; its batches cannot be numbered.
    """

    def __init__(self, runner, dataloader: ConfigType, **kwargs) -> None:
        if not isinstance(dataloader, dict):
            raise TypeError(
                f'ResumableTrainLoop: train_dataloader={dataloader!r} has to be a '
                'config'
            )
        # Loading a checkpoint may change the runner's seed; the sampler has this one.
        self._seed = runner.seed
        loader = runner.build_dataloader(
            number_batches(dataloader),
            seed=runner.seed,
            diff_rank_seed=runner._randomness_cfg.get('diff_rank_seed', False),
        )
        # Before the base class starts the workers, which get a copy.
        seed_by_place(loader.dataset, runner.seed)
        super().__init__(runner, loader, **kwargs)

    def run(self) -> torch.nn.Module:
        """Train from the current iteration to the last."""
        if self.runner.seed != self._seed:
            self.runner.logger.warning(
                f'The checkpoint was trained with seed {self.runner.seed}, and this '
                f'run draws its pictures with {self._seed}: it does not repeat the '
                f'interrupted one. Set randomness.seed={self.runner.seed}.'
            )
        # The fork of MMEngine starts its workers when it is first asked for a batch.
        start = getattr(self.dataloader_iterator, '_ensure_iterator', lambda: None)
        start()
        self.dataloader_iterator: Iterator = Batches(
            chain(repeat(None, self._skip_past()), self.dataloader_iterator)
        )
        return super().run()

    def run_iter(self, data_batch) -> None:
        """Train on one batch."""
        seed_randomness(self.runner.seed, ITERATION, get_rank(), self._iter)
        super().run_iter(data_batch)

    def _skip_past(self) -> int:
        """Leave batches of the past unread, where possible; return how many.

        What the workers have in hand already is left to the base class.
        """
        batches = self.dataloader.batch_sampler
        return batches.skip_to(self._iter) if batches.endless else 0


class Batches(Iterator):
    """An iterator as the base class wants it, which drops every batch of the past.

    MMEngine asks for one after the other, its fork for so many at once.
    """

    def __init__(self, batches: Iterator) -> None:
        self._batches = batches

    def __next__(self) -> Any:
        return next(self._batches)

    def skip_iter(self, count: int) -> None:
        for _ in range(count):
            next(self)
