"""A saved training step, taken apart until it is clear what is not finite."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from .randomness import ITERATION, seed_randomness
from .saved_batch import SavedBatch


class Replay(NamedTuple):
    """What a repeated step shows."""

    losses: dict[str, float]
    """Of the whole batch, by the names of the log."""

    module: str | None
    """Name and class of the first module with an output that is not finite."""

    parameters: list[str]
    """Parameters whose gradient is not finite."""

    pictures: list[tuple[dict[str, Any], float]]
    """Meta of each picture, and the total loss of that picture alone."""


def replay(cfg: Config, saved: SavedBatch) -> Replay:
    """Repeat the forward and backward pass of ``saved``, without a step.

    Args:
        cfg: The config that was trained, on one process; the losses of a distributed
            run also depend on what the other processes had.
        saved: The step.

    Raises:
        ValueError: The weights do not fit the config's model.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    model = build_trained(cfg, saved.state_dict)
    # Rules for single parameters only matter to a step, and are logged one by one.
    wrapper = build_optim_wrapper(model, dict(cfg.optim_wrapper, paramwise_cfg=None))
    with first_non_finite(model) as found:
        total, losses = losses_of(model, wrapper, saved)
    parameters = []
    if total.requires_grad:
        wrapper.scale_loss(total).backward()
        parameters = [
            name
            for name, p in model.named_parameters()
            if p.grad is not None and not p.grad.isfinite().all()
        ]
    pictures = []
    for single in single_pictures(saved):
        # The forward pass changes running statistics.
        model.load_state_dict(saved.state_dict)
        with torch.no_grad():
            total, _ = losses_of(model, wrapper, single)
        (sample,) = single.data_batch['data_samples']
        pictures.append((sample.metainfo, float(total)))
    values = {
        name: float(torch.as_tensor(value).detach()) for name, value in losses.items()
    }
    return Replay(values, found[0] if found else None, parameters, pictures)


def build_trained(cfg: Config, state_dict: dict[str, Tensor]) -> BaseDetector:
    """The config's model in training mode, with those weights."""
    model = MODELS.build(cfg.model)
    try:
        model.load_state_dict(state_dict)
    except RuntimeError as error:
        raise ValueError(
            'the weights of the saved batch do not fit the model of the config '
            f'({str(error).splitlines()[1].strip()})'
        ) from error
    return model.train()


def losses_of(
    model: BaseDetector, wrapper: OptimWrapper, saved: SavedBatch
) -> tuple[Tensor, dict[str, Tensor]]:
    """Total and named losses under the precision and random numbers of the run."""
    seed_randomness(saved.seed, ITERATION, saved.rank, saved.iteration)
    with wrapper.optim_context(model):
        data = model.data_preprocessor(saved.data_batch, True)
        losses = model(**data, mode='loss')
    return model.parse_losses(losses)


def single_pictures(saved: SavedBatch) -> list[SavedBatch]:
    """The batch as batches of one picture."""
    batch = saved.data_batch
    return [
        saved._replace(data_batch=dict(inputs=[pixels], data_samples=[sample]))
        for pixels, sample in zip(batch['inputs'], batch['data_samples'], strict=True)
    ]


@contextmanager
def first_non_finite(model: BaseDetector):
    """Collect the modules whose output is not finite, the innermost first."""
    found: list[str] = []

    def look(name: str, module: nn.Module, output: Any) -> None:
        if not all(t.isfinite().all() for t in tensors_in(output)):
            found.append(f'{name} ({type(module).__name__})')

    handles = [
        module.register_forward_hook(
            lambda module, _, output, name=name: look(name, module, output)
        )
        for name, module in model.named_modules()
        if name
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def tensors_in(output: Any) -> list[Tensor]:
    """Floating-point tensors in nested sequences and dicts."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, (list, tuple)):
        return [tensor for part in output for tensor in tensors_in(part)]
    return []


def describe(saved: SavedBatch, result: Replay) -> str:
    """What a person wants to read about a replay, in lines."""
    lines = [f'{"loss":<20}{"recorded":>14}{"now":>14}']
    for name, value in saved.losses.items():
        now = result.losses.get(name, float('nan'))
        lines.append(f'{name:<20}{value:>14.6g}{now:>14.6g}')
    if result.module is not None:
        lines.append(f'first output that is not finite: {result.module}')
    elif result.parameters:
        count = len(result.parameters)
        lines.append(
            f'gradients that are not finite: {count} parameters, such as '
            f'{result.parameters[0]}'
        )
    else:
        lines.append('every output and every gradient is finite')
    lines.append('each picture alone:')
    for meta, loss in result.pictures:
        lines.append(f'  {meta.get("img_id")} {meta.get("img_path")}: loss {loss:.6g}')
    return '\n'.join(lines)
