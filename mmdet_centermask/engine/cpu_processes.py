"""Training spread over processes of a CPU; MMEngine itself only knows GPUs."""

from __future__ import annotations

import os

import torch.distributed as dist
from mmengine.config import Config

ADDRESS = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')


def spread_over_cpus(cfg: Config) -> None:
    """Let the config's runner work in processes that talk through gloo.

    MMEngine would pick a GPU for each process, before it joins the group and in the
    model wrapper. A group that is there already is taken as it is, and a wrapper
    without devices is what torch wants on a CPU.

    Raises:
        ValueError: No launcher has told this process its place, in one line.
    """
    missing = [name for name in ADDRESS if name not in os.environ]
    if missing:
        raise ValueError(
            f'{missing[0]} is not set, so nothing launched this process; use '
            '`mim train ... --launcher pytorch --gpus N` or `torchrun`'
        )
    wrapper = cfg.get('model_wrapper_cfg') or dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    cfg.model_wrapper_cfg = dict(wrapper, device_ids=None)
    if not dist.is_initialized():
        dist.init_process_group('gloo')
