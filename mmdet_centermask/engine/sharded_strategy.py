"""MMEngine's FSDP strategy, for detectors with scalar parameters."""

from __future__ import annotations

from typing import Any

from mmengine._strategy.fsdp import FSDPStrategy
from mmengine.optim import BaseOptimWrapper
from mmengine.registry import STRATEGIES
from torch import Tensor, nn


@STRATEGIES.register_module()
class ShardedStrategy(FSDPStrategy):
    """Stock FSDP with two things mended.

    torch's FSDP refuses parameters without a dimension, such as the scales of FCOS.
    And the stock wrapper clips each process's share of the gradients by the norm of
    that share; here the norm is that of all of them.
    """

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """The model, its scalars as vectors of length 1."""
        model = super().build_model(model)
        lift_scalars(model)
        self.id_to_name = {id(p): name for name, p in model.named_parameters()}
        return model

    def build_optim_wrapper(
        self, optim_wrapper: Any, model: nn.Module | None = None
    ) -> BaseOptimWrapper:
        """The optimizer wrapper, clipping by the norm over all processes."""
        wrapper = super().build_optim_wrapper(optim_wrapper, model)
        if getattr(wrapper, 'grad_name', None) == 'grad_norm':
            wrapper.clip_func = lambda _, **limits: model.clip_grad_norm_(**limits)
        return wrapper


def lift_scalars(model: nn.Module) -> None:
    """Make vectors of length 1 of parameters without a dimension.

    They broadcast the same. A plain model loads them as they are, torch takes the one
    element out; the other way round is taken care of here.
    """
    for module in model.modules():
        scalars = [n for n, p in module.named_parameters(recurse=False) if p.dim() == 0]
        for name in scalars:
            parameter = getattr(module, name)
            lifted = nn.Parameter(parameter.detach()[None], parameter.requires_grad)
            setattr(module, name, lifted)
        if scalars:
            module._register_load_state_dict_pre_hook(
                lambda state, prefix, *_, names=scalars: lift_state(
                    state, [prefix + name for name in names]
                )
            )


def lift_state(state: dict[str, Tensor], names: list[str]) -> None:
    """The same for those entries of a state dict."""
    for name in names:
        if name in state and state[name].dim() == 0:
            state[name] = state[name][None]
