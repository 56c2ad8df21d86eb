"""One log for all processes."""

from __future__ import annotations

from mmdet.registry import HOOKS
from mmengine.dist import all_reduce_dict, get_world_size
from mmengine.hooks import Hook


@HOOKS.register_module()
class AverageLossesHook(Hook):
    """Logs the losses of the whole batch, not those of the first process.

    The gradients are averaged over the processes; MMEngine logs what its first process
    computed. Needs the same names in every process.
    """

    # Behind NonFiniteGuardHook (0), which wants this process's own losses, and before
    # RuntimeInfoHook (10), which hands them to the log.
    priority = 5

    def after_train_iter(
        self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None
    ) -> None:
        """Put averages in the place of the losses."""
        if outputs and get_world_size() > 1:
            losses = {name: value.detach() for name, value in outputs.items()}
            all_reduce_dict(losses, 'mean')
            outputs.update(losses)
