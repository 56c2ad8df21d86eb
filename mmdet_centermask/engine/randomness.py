"""Random numbers as a function of where training stands.

A generator that runs on from the first iteration has a state, which a run would have
to save and restore in every process and every worker. Seeded anew for each iteration
and each picture, there is no state: the numbers follow from the seed of the run and
from a counter.
"""

from __future__ import annotations

import random

import numpy as np
import torch

# First number of a key: what the random numbers are for.
PICTURE, ITERATION = 0, 1


def seed_randomness(*key: int) -> None:
    """Seed Python, NumPy and torch (all devices) by a hash of ``key``.

    Args:
        key: Non-negative integers. Keys that differ anywhere, in length too, give
            unrelated random numbers.
    """
    # The length belongs to the key: SeedSequence pads with zeros.
    sequence = np.random.SeedSequence([len(key), *key])
    for_python, for_numpy, for_torch = sequence.generate_state(3)
    random.seed(int(for_python))
    np.random.seed(for_numpy)
    torch.manual_seed(int(for_torch))
