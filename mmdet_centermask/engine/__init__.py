"""Training that can be trusted: what MMEngine's loop, hooks and wrappers lack.

Importing this package registers its parts in MMDetection.
"""

from .atomic_checkpoint_hook import AtomicCheckpointHook
from .average_losses_hook import AverageLossesHook
from .channels_last_hook import ChannelsLastHook
from .mixed_precision_optim_wrapper import MixedPrecisionOptimWrapper
from .non_finite_guard_hook import NonFiniteError, NonFiniteGuardHook
from .numbered_batch_sampler import NumberedBatchSampler
from .resumable_train_loop import ResumableTrainLoop
from .sharded_strategy import ShardedStrategy

__all__ = [
    'AtomicCheckpointHook',
    'AverageLossesHook',
    'ChannelsLastHook',
    'MixedPrecisionOptimWrapper',
    'NonFiniteError',
    'NonFiniteGuardHook',
    'NumberedBatchSampler',
    'ResumableTrainLoop',
    'ShardedStrategy',
]
