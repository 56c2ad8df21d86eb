"""One call that makes a trained detector fast: :func:`optimize`."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from mmengine.logging import print_log
from torch import nn

from .compile_network import compile_network
from .fold_norms import fold_norms
from .kept_memory import keep_freed_memory
from .lower_precision import lower_precision
from .packed_conv import can_pack, pack_convs
from .precision import choose_precision
from .separable_roi_extractor import use_separable_pooling


def optimize(
    model: nn.Module, precision: str = 'auto', compile: bool = False
) -> nn.Module:
    """A copy of a detector that answers the same, faster.

    Batch norms are folded into convs, maps lie in channels_last order, the network
    computes in the shortest number format that the device has units for, and on a CPU
    conv weights are packed ahead, RoIs pooled by matrix products and freed memory is
    kept for the next map (:func:`keep_freed_memory`; that holds for the process).
    Boxes, scores and what follows stay in float32. What was chosen is logged in one
    line.

    Args:
        model: Any detector of MMDetection, with its weights loaded, on the device
            where it is to run; also one inside test-time augmentation. It is left as
            it is.
        precision: ``'auto'``, ``'float32'``, ``'bfloat16'`` or ``'float16'``; see
            :func:`choose_precision`.
        compile: Also run backbone, neck and dense head through ``torch.compile``: the
            first picture of each size class then takes minutes on a CPU; see
            :func:`compile_network`.

    Returns:
        The fast detector, for inference alone. Its ``state_dict()`` is that of
        ``model``; loading weights into it or training it is refused.

    Raises:
        ValueError: ``precision`` is unknown or not for this device.
    """
    device = next(model.parameters()).device
    chosen = choose_precision(device, precision)
    fast = deepcopy(model).eval().requires_grad_(False)
    detector = getattr(fast, 'module', fast)
    on_cpu = device.type == 'cpu'
    steps = [f'{fold_norms(detector)} norms folded']
    if on_cpu and use_separable_pooling(detector):
        steps.append('RoIs pooled by matrix products')
    lower_precision(detector, chosen.dtype)
    steps.append('channels_last')
    compiled = compile_network(detector) if compile else []
    if compiled:
        steps.append(f'{len(compiled)} parts compiled, pictures padded to 128')
    if on_cpu and can_pack(chosen.dtype):
        rest = [part for part in detector.children() if part not in compiled]
        steps.append(f'{sum(map(pack_convs, rest))} convs packed')
    if on_cpu and keep_freed_memory():
        steps.append('freed memory kept')
    _seal(fast, model)
    dtype = str(chosen.dtype).removeprefix('torch.')
    print_log(
        f'optimize: {type(detector).__name__} in {dtype} ({chosen.reason}), '
        f'{", ".join(steps)}',
        'current',
    )
    return fast


def _seal(fast: nn.Module, model: nn.Module) -> None:
    """Keep weights of the fast form out of checkpoints, and training out of it."""
    set_mode = fast.train

    def refuse_loading(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError(
            'an optimized detector takes no weights: load them into the detector '
            'first, then call optimize'
        )

    def train(mode: bool = True) -> nn.Module:
        if mode:
            raise RuntimeError(
                'an optimized detector cannot be trained: train the one that optimize '
                'was given'
            )
        return set_mode(False)

    fast.state_dict = model.state_dict  # type: ignore[method-assign]
    fast.load_state_dict = refuse_loading  # type: ignore[method-assign,assignment]
    fast.train = train  # type: ignore[method-assign]
