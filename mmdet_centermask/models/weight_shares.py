"""What share of each part of a model a checkpoint fills.

mmengine loads with `strict=False`: of a file that fits nothing it prints thousands of
names, and goes on with random weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from .pretrained import below_prefix

# FrozenBN files have no counters, and nothing depends on them.
UNCOUNTED = 'num_batches_tracked'


@dataclass(frozen=True)
class PartShare:
    """How much of a part of the model (`backbone`, `bbox_head`, ...) is filled.

    Attributes:
        part: Its name.
        total: Tensors that it has.
        filled: Of those, in the checkpoint with the same shape.
        class_rows: Of those, in it for another number of classes: the shapes differ
            in the first dimension alone.
        misshapen: Of those, in it with another shape otherwise.
    """

    part: str
    total: int
    filled: int
    class_rows: int
    misshapen: int

    def __str__(self) -> str:
        text = f'{self.part} {self.filled} of {self.total} tensors'
        notes = []
        if self.class_rows:
            notes.append(f'{self.class_rows} class rows differ in shape')
        if self.misshapen:
            notes.append(f'{self.misshapen} differ in shape')
        return f'{text} ({", ".join(notes)})' if notes else text


def weight_shares(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> list[PartShare]:
    """Compare a model's state dict with that of a checkpoint, part by part.

    A part is what stands before the first dot of a name.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in own.items():
        parts.setdefault(name.split('.')[0], {})[name] = tensor
    return [part_share(part, tensors, state) for part, tensors in parts.items()]


def part_share(
    part: str, own: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> PartShare:
    """What `state` fills of `own`, by name and shape."""
    wanted = {k: tuple(v.shape) for k, v in own.items() if not k.endswith(UNCOUNTED)}
    given = {k: tuple(state[k].shape) for k in wanted if k in state}
    filled = [k for k, shape in given.items() if shape == wanted[k]]
    others = [k for k in given if given[k] != wanted[k]]
    class_rows = [
        k
        for k in others
        if len(given[k]) == len(wanted[k]) and given[k][1:] == wanted[k][1:]
    ]
    misshapen = len(others) - len(class_rows)
    return PartShare(part, len(wanted), len(filled), len(class_rows), misshapen)


def pretrained_shares(model: nn.Module) -> list[tuple[PartShare, str]]:
    """What `Pretrained` init_cfgs have filled, and from which file."""
    found = []
    for name, module in model.named_modules():
        init_cfg = getattr(module, 'init_cfg', None) or []
        for init in [init_cfg] if isinstance(init_cfg, dict) else init_cfg:
            if init.get('type') == 'Pretrained':
                path = init['checkpoint']
                loaded = CheckpointLoader.load_checkpoint(path, map_location='cpu')
                state = below_prefix(state_of(loaded), init.get('prefix'))
                share = part_share(name or 'model', module.state_dict(), state)
                found.append((share, path))
    return found


def in_words(shares: Sequence[PartShare]) -> str:
    return ', '.join(map(str, shares))


def unfilled(shares: Sequence[PartShare]) -> list[str]:
    """Parts of which nothing at all is in the checkpoint."""
    return [share.part for share in shares if not share.filled]


def complete(shares: Sequence[PartShare]) -> bool:
    return all(share.filled == share.total for share in shares)


def state_of(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint under the names that mmengine gives them."""
    state = checkpoint.get('state_dict', checkpoint)
    tensors = {k: v for k, v in state.items() if isinstance(v, Tensor)}
    return {name.removeprefix('module.'): v for name, v in tensors.items()}


def bare_model(model: Any) -> nn.Module:
    """The model inside the wrappers of distributed training and of TTA."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def is_sharded(model: nn.Module) -> bool:
    """Whether FSDP holds the weights; no process can compare them by itself then."""
    return any('FullySharded' in type(module).__name__ for module in model.modules())


def unlike_names(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """Show by one name each how those of the checkpoint differ from the model's."""
    theirs = next((name for name in state if name not in own), None)
    ours = next((name for name in own if name not in state), None)
    if theirs is None:
        return 'it holds no tensors' if not state else f'{ours!r} is missing'
    return f'it holds names such as {theirs!r}, the model has {ours!r}'
