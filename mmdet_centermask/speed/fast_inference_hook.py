"""Validation and tests with the optimized detector, from a config."""

from __future__ import annotations

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from .optimize import optimize


@HOOKS.register_module()
class FastInferenceHook(Hook):
    """Run validation and test loops on what :func:`optimize` makes of the model.

    ``custom_hooks = [dict(type='FastInferenceHook')]`` in a config, or ``--fast`` of
    ``tools/test.py``. Training and checkpoints see the model itself.

    Args:
        precision: As in :func:`optimize`.
        compile: As in :func:`optimize`.
    """

    # After EMAHook has put its averaged weights into the model.
    priority = 'VERY_LOW'

    def __init__(self, precision: str = 'auto', compile: bool = False) -> None:
        self.precision = precision
        self.compile = compile
        self.model: nn.Module | None = None

    def before_val_epoch(self, runner: Runner) -> None:
        self.model = runner.model
        # The processes of a distributed test do not talk in the forward pass.
        bare = runner.model.module if is_model_wrapper(runner.model) else runner.model
        runner.model = optimize(bare, self.precision, self.compile)

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        runner.model = self.model
        self.model = None

    before_test_epoch = before_val_epoch
    after_test_epoch = after_val_epoch
