"""Training spread over processes of a CPU; MMEngine itself only knows GPUs."""

from __future__ import annotations

import os

import torch.distributed as dist
from mmdet.utils import ConfigType
from mmengine.config import Config

ADDRESS = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')


def spread_over_cpus(cfg: Config) -> None:
    """Let the config's runner work in processes that talk through gloo.

    MMEngine would pick a GPU for each process, before it joins the group and in the
    model wrapper. A group that is there already is taken as it is, and the wrapper is
    told to stay on the CPU.

    Raises:
        ValueError: No launcher has told this process its place, in one line.
    """
    missing = [name for name in ADDRESS if name not in os.environ]
    if missing:
        raise ValueError(
            f'{missing[0]} is not set, so nothing launched this process; use '
            '`mim train ... --launcher pytorch --gpus N` or `torchrun`'
        )
    if 'strategy' in cfg:
        cfg.strategy.model_wrapper = on_cpu(cfg.strategy.get('model_wrapper') or {})
    else:
        plain = dict(
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )
        cfg.model_wrapper_cfg = on_cpu(cfg.get('model_wrapper_cfg') or plain)
    if not dist.is_initialized():
        dist.init_process_group('gloo')


def on_cpu(wrapper: ConfigType) -> ConfigType:
    """The config of a model wrapper, with the device that its class understands."""
    if wrapper.get('type') == 'MMFullyShardedDataParallel':
        return dict(wrapper, device_id='cpu')
    return {'type': 'MMDistributedDataParallel', **wrapper, 'device_ids': None}
