"""One line at the start of a run: did the weights load, do rate, loss, pixels fit?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmdet.registry import HOOKS
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..experiment import ExperimentError
from ..models.weight_shares import (
    PartShare,
    bare_model,
    complete,
    in_words,
    is_sharded,
    pretrained_shares,
    state_of,
    unfilled,
    unlike_names,
    weight_shares,
)
from .first_loss import FirstLoss
from .learning_rate import learning_rate_of
from .pixel_statistics import pixel_problem, pixel_statistics, raw_pictures

CONVERT = (
    'tools/convert_checkpoint.py makes a fitting file of released and foreign ones '
    '(docs/converting.md)'
)


@HOOKS.register_module()
class StartupCheckHook(Hook):
    """Says what a run starts from, and warns in plain words of what does not fit.

    Before training: what share of each part of the model comes from a checkpoint, and
    whether the learning rate fits the batch size. After the first iteration: whether
    `loss_cls` is what a fresh head gives and the pixels fit mean and std. Training is
    never stopped.

    Args:
        enabled: `default_hooks = dict(startup_check=dict(enabled=False))` switches it
            off.

    Raises:
        ExperimentError: Before a test or a validation by itself: whole parts of the
            model are not in the checkpoint, and every number would be one of random
            weights.
    """

    priority = 'VERY_LOW'  # EMAHook may exchange weights of a checkpoint

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self._shares: list[PartShare] | None = None
        self._unlike = ''
        self._said: list[str] = []
        self._first_loss: FirstLoss | None = None
        self._training = False
        self._waiting = enabled

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the checkpoint with the model, which has not got it yet."""
        model = bare_model(runner.model)
        if self.enabled and not is_sharded(model):
            own, state = model.state_dict(), state_of(checkpoint)
            self._shares = weight_shares(own, state)
            self._unlike = f'{unlike_names(own, state)}; '

    def before_test(self, runner: Runner) -> None:
        """Refuse to measure random weights."""
        self._require_weights(runner)

    def before_val(self, runner: Runner) -> None:
        """The same, where validation is not part of training."""
        if not self._training:
            self._require_weights(runner)

    def before_train(self, runner: Runner) -> None:
        """Check weights and learning rate."""
        self._training = True
        if not self.enabled:
            return
        self._try(runner, self._check_weights)
        self._try(runner, self._check_learning_rate)
        if self._head_is_fresh():
            self._first_loss = FirstLoss()
            self._try(runner, self._listen)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """After the first iteration: check loss and pixels, and say what was found."""
        if not self._waiting:
            return
        self._waiting = False
        self._try(runner, self._check_loss)
        self._try(runner, lambda runner: self._check_pixels(runner, data_batch))
        runner.logger.info(f'start-up check: {"; ".join(self._said)}')

    def _try(self, runner: Runner, check: Callable[[Runner], None]) -> None:
        """Run a check; a model or config of unknown form is not worth a training."""
        try:
            check(runner)
        except Exception as error:
            name = check.__name__.removeprefix('_')
            runner.logger.warning(f'start-up check: no {name} here ({error!r})')

    def _require_weights(self, runner: Runner) -> None:
        if not self.enabled or self._shares is None:
            return
        text = f'{runner.cfg.get("load_from")}: {in_words(self._shares)}'
        if unfilled(self._shares):
            raise ExperimentError(
                f'the checkpoint does not fit the config, {text}; '
                f'{self._unlike}{CONVERT}'
            )
        if complete(self._shares):
            runner.logger.info(f'start-up check: weights from {text}')
        else:
            runner.logger.warning(
                f'start-up check: weights from {text}; the others stay random, and '
                'with them what is measured: give a checkpoint for the classes and '
                'the sizes of this config'
            )

    def _check_weights(self, runner: Runner) -> None:
        if is_sharded(bare_model(runner.model)):
            self._said.append('weights: sharded, not compared')
            return
        resumed = runner.iter > 0
        if self._shares is None:
            found = pretrained_shares(bare_model(runner.model))
            shares = [share for share, _ in found]
            texts = [f'{share} from {path}' for share, path in found]
            text = ', '.join([*texts, 'the rest random']) if texts else 'all random'
        else:
            shares = [s for s in self._shares if s.part == 'backbone' or resumed]
            text = in_words(self._shares)
        self._said.append(f'weights: {text}')
        if unfilled(shares) or resumed and not complete(shares):
            runner.logger.warning(
                f'start-up check: the checkpoint does not fit the model, {text}; '
                f'{self._unlike}what is missing starts from random weights; {CONVERT}'
            )

    def _head_is_fresh(self) -> bool:
        """Whether nothing of the box head comes from a checkpoint."""
        shares = self._shares or []
        return not any(share.filled for share in shares if share.part == 'bbox_head')

    def _check_learning_rate(self, runner: Runner) -> None:
        rate = learning_rate_of(runner.cfg, get_world_size())
        if rate is None:
            return
        self._said.append(str(rate))
        problem = rate.problem()
        if problem is not None:
            runner.logger.warning(f'start-up check: {problem}')

    def _listen(self, runner: Runner) -> None:
        assert self._first_loss is not None
        self._first_loss.listen(bare_model(runner.model))

    def _check_loss(self, runner: Runner) -> None:
        if self._first_loss is None:
            return
        self._first_loss.stop()
        if self._first_loss.expected:
            self._said.append(str(self._first_loss))
        problem = self._first_loss.problem()
        if problem is not None:
            runner.logger.warning(f'start-up check: {problem}')

    def _check_pixels(self, runner: Runner, data_batch: Any) -> None:
        preprocessor: Any = bare_model(runner.model).data_preprocessor
        mean = getattr(preprocessor, 'mean', None)
        pictures = raw_pictures(data_batch)
        if mean is None or not pictures or len({p.size(0) for p in pictures}) > 1:
            return
        if getattr(preprocessor, '_channel_conversion', False):
            pictures = [picture.flip(0) for picture in pictures]
        constants = mean.flatten().tolist(), preprocessor.std.flatten().tolist()
        problem = pixel_problem(*pixel_statistics(pictures), *constants)
        if problem is not None:
            runner.logger.warning(f'start-up check: {problem}')
        else:
            self._said.append('pixels fit mean and std')
