"""Batches whose pictures carry their place in the stream of the whole run.

The place is what a picture's augmentation is seeded with. It depends neither on the
number of workers nor on which of them loads the picture, and no worker has to have
loaded what came before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple

from mmdet.registry import DATA_SAMPLERS
from mmdet.utils import ConfigType
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_dist_info
from torch.utils.data import BatchSampler, Dataset, Sampler

from .randomness import PICTURE, seed_randomness


class NumberedIndex(NamedTuple):
    """One picture of a batch."""

    index: int  # type: ignore[assignment]
    """Which picture of the dataset."""

    place: int
    """How many pictures the run had drawn before, over all processes."""


@DATA_SAMPLERS.register_module()
class NumberedBatchSampler(Sampler):
    """Numbers what another batch sampler draws, and can leave out what is past.

    The n-th picture of process r among w has the place ``n * w + r``: w processes
    see and augment the same pictures as one process with w times the batch, as long
    as the inner batch sampler keeps the order.

    Args:
        sampler: Draws indices.
        batch_size: Pictures in a batch of this process.
        batch_sampler: Config of the batch sampler to number.
    """

    def __init__(
        self, sampler: Sampler, batch_size: int, batch_sampler: ConfigType
    ) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.inner = DATA_SAMPLERS.build(
            batch_sampler, default_args=dict(sampler=sampler, batch_size=batch_size)
        )
        self.batches_drawn = 0
        self._pictures_drawn = 0
        self._rank, self._world_size = get_dist_info()
        self._stream: Iterator[list[int]] = iter(())

    def __iter__(self) -> Iterator[list[NumberedIndex]]:
        self._stream = iter(self.inner)
        # Not a loop over the stream: `skip_to` draws from it in between.
        return iter(self._draw, None)

    def __len__(self) -> int:
        return len(self.inner)

    @property
    def endless(self) -> bool:
        """Whether the stream never starts anew, which skipping needs."""
        return isinstance(self.sampler, InfiniteSampler)

    def skip_to(self, batches: int) -> int:
        """Draw and forget until ``batches`` have been drawn; return how many.

        Args:
            batches: Counted from the start of the run.
        """
        skipped = 0
        while self.batches_drawn < batches:
            self._draw()
            skipped += 1
        return skipped

    def _draw(self) -> list[NumberedIndex] | None:
        batch = next(self._stream, None)
        if batch is None:
            return None
        self.batches_drawn += 1
        first = self._pictures_drawn
        self._pictures_drawn += len(batch)
        return [
            NumberedIndex(index, n * self._world_size + self._rank)
            for n, index in enumerate(batch, first)
        ]


def number_batches(dataloader: ConfigType) -> ConfigType:
    """Return a copy of a dataloader config whose batches come numbered."""
    cfg = deepcopy(dataloader)
    inner = cfg.get('batch_sampler')
    if inner is None:
        # What torch's DataLoader makes of a sampler and these two arguments.
        inner = dict(type=BatchSampler, drop_last=cfg.pop('drop_last', False))
    cfg['batch_sampler'] = dict(type='NumberedBatchSampler', batch_sampler=inner)
    return cfg


def seed_by_place(dataset: Dataset, seed: int) -> None:
    """Make ``dataset`` load numbered batches, each picture under its own seed.

    ``__getitems__`` is what torch's DataLoader asks for a whole batch. Set on the
    object, it leaves the dataset's class, and whoever looks at it, alone.
    """
    dataset.__getitems__ = partial(load_numbered, dataset, seed)  # type: ignore


def load_numbered(
    dataset: Dataset, seed: int, batch: Sequence[NumberedIndex]
) -> list[Any]:
    """Return the items of ``batch``, random numbers seeded before each."""
    items = []
    for index, place in batch:
        seed_randomness(seed, PICTURE, place)
        items.append(dataset[index])
    return items
