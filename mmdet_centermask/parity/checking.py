"""The whole check of one config, from files to a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .compare import Row, compare
from .network import Answers, predict_answers, stand_in_network
from .picture import CASES
from .training import training_answers


def check(
    config: str | Path,
    golden: Mapping[str, np.ndarray],
    manifest: Mapping[str, Sequence[int]],
    picture: np.ndarray,
) -> list[Row]:
    """Compare the network of `config` with `golden`, on the CPU in float32.

    Args:
        config: Path of a config.
        golden: As `load_golden` gives it.
        manifest: Shape of each parameter by its official name.
        picture: As `parity_picture` gives it.

    Raises:
        ValueError: The manifest does not fit the config's model one to one.
    """
    return compare(golden, answer(config, golden, manifest, picture))


def answer(
    config: str | Path,
    golden: Mapping[str, np.ndarray],
    manifest: Mapping[str, Sequence[int]],
    picture: np.ndarray,
) -> Answers:
    """What the network says to the questions of `golden`."""
    model = stand_in_network(config, manifest)
    answers: Answers = {}
    for case, cut in CASES.items():
        if any(name.startswith(f'{case}/') for name in golden):
            answers |= predict_answers(model, picture[cut], case)
    if 'train/polygons' in golden:
        answers |= training_answers(model, picture, golden)
    return answers
