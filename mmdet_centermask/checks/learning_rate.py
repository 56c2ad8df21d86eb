"""Does the learning rate fit the number of pictures in a step?

A rate is made for a batch size (`auto_scale_lr.base_batch_size`); the linear rule
(https://arxiv.org/abs/1706.02677, section 2.1) carries it to another.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmengine.config import Config

FITS = 2.0  # factor by which a rate may miss the linear rule without a word


@dataclass(frozen=True)
class LearningRate:
    """The learning rate after warm-up, and what it is for.

    Attributes:
        configured: `optim_wrapper.optimizer.lr`.
        base: `auto_scale_lr.base_batch_size`.
        scaled: `auto_scale_lr.enable`.
        pictures: Of all processes in one iteration.
        accumulated: `optim_wrapper.accumulative_counts`, iterations in a step.
    """

    configured: float
    base: int
    scaled: bool
    pictures: int
    accumulated: int = 1

    @property
    def effective(self) -> float:
        """What the optimizer gets. mmengine's scaling knows no accumulation."""
        return self.configured * (self.pictures / self.base if self.scaled else 1)

    @property
    def fitting(self) -> float:
        """What the linear rule gives for the pictures of a step."""
        return self.configured * self.pictures * self.accumulated / self.base

    def __str__(self) -> str:
        return (
            f'learning rate {self.effective:.4g} for {self.in_a_step} '
            f'({self.configured:.4g} for {self.base})'
        )

    @property
    def in_a_step(self) -> str:
        step = self.pictures * self.accumulated
        return f'{step} picture{"" if step == 1 else "s"} a step'

    def problem(self) -> str | None:
        """Say in plain words what does not fit, or None."""
        ratio = self.effective / self.fitting
        if 1 / FITS < ratio < FITS:
            return None
        how = 'too high, which can end in NaN losses' if ratio > 1 else 'too low'
        mend = f'set optim_wrapper.optimizer.lr={self.lr_to_write:.4g}'
        if not self.scaled:
            mend = f'set auto_scale_lr=dict(enable=True), or {mend[4:]}'
        return (
            f'the learning rate {self.effective:.4g} is {how}: '
            f'{self.configured:.4g} is meant for {self.base} pictures, and a step sees '
            f'{self.pictures * self.accumulated}; {mend}'
        )

    @property
    def lr_to_write(self) -> float:
        """The `lr` in the config that makes `effective` what fits."""
        return self.fitting * (self.base / self.pictures if self.scaled else 1)


def learning_rate_of(cfg: Config, processes: int) -> LearningRate | None:
    """What a config says; None where it does not say what its rate is for."""
    scale = cfg.get('auto_scale_lr') or {}
    base = scale.get('base_batch_size')
    wrapper = cfg.get('optim_wrapper') or {}
    rate = (wrapper.get('optimizer') or {}).get('lr')
    pictures = (cfg.get('train_dataloader') or {}).get('batch_size')
    if base is None or rate is None or pictures is None:
        return None
    return LearningRate(
        rate,
        base,
        scale.get('enable', False),
        pictures * processes,
        wrapper.get('accumulative_counts', 1),
    )
