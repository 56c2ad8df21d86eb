"""Loading a backbone loudly.

mmengine's ``Pretrained`` loads with ``strict=False``: a file that matches nothing
leaves the network at its random start, and the training runs on in silence.
"""

from __future__ import annotations

from mmdet.utils import ConfigType
from mmengine.logging import print_log
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

# Not every file has them: FrozenBN keeps no count, and deformable convs put on top
# of plain ImageNet weights start with offsets of zero.
MAY_MISS = ('num_batches_tracked', 'conv_offset.weight', 'conv_offset.bias')


def load_pretrained(module: nn.Module, init_cfg: ConfigType) -> None:
    """Load ``module`` from ``init_cfg``, all of it or not at all.

    Args:
        module: Takes the weights.
        init_cfg: ``checkpoint``, and ``prefix`` of the module's names in it.

    Raises:
        FileNotFoundError: There is no such file; says how to come by one.
        ValueError: Weights of ``module`` are missing from the file or have another
            shape; names them.
    """
    path, prefix = init_cfg['checkpoint'], init_cfg.get('prefix')
    name = type(module).__name__
    try:
        loaded = CheckpointLoader.load_checkpoint(path, map_location='cpu')
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'{name}: init_cfg.checkpoint={path!r} does not exist; '
            'tools/convert_checkpoint.py makes such a file (docs/converting.md), and '
            'init_cfg=None starts from random weights'
        ) from error
    state = below_prefix(loaded.get('state_dict', loaded), prefix)
    misfits = find_misfits(module.state_dict(), state)
    if misfits:
        raise ValueError(
            f'{name}: init_cfg.checkpoint={path!r} with prefix={prefix!r} does not '
            f'fit, {len(misfits)} of {len(module.state_dict())} tensors: '
            f'{"; ".join(misfits)}'
        )
    module.load_state_dict(state, strict=False)
    used = len(state.keys() & module.state_dict().keys())
    print_log(
        f'{name}: {used} tensors from {path}, {len(state) - used} unused', 'current'
    )


def below_prefix(state: dict[str, Tensor], prefix: str | None) -> dict[str, Tensor]:
    """The entries below ``prefix``, without it."""
    if not prefix:
        return dict(state)
    prefix = prefix.rstrip('.') + '.'
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def find_misfits(own: dict[str, Tensor], state: dict[str, Tensor]) -> list[str]:
    """One phrase for each tensor of ``own`` that ``state`` cannot fill."""
    misfits = []
    for key, tensor in own.items():
        if key not in state:
            if not key.endswith(MAY_MISS):
                misfits.append(f'{key} is missing')
        elif state[key].shape != tensor.shape:
            shapes = f'{tuple(state[key].shape)} instead of {tuple(tensor.shape)}'
            misfits.append(f'{key} is {shapes}')
    return misfits
