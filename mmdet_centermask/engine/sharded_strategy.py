"""MMEngine's FSDP strategy, for detectors with scalar parameters."""

from __future__ import annotations

from typing import Any

from mmengine._strategy.fsdp import FSDPStrategy
from mmengine.device import get_device
from mmengine.optim import BaseOptimWrapper
from mmengine.registry import STRATEGIES
from torch import Tensor, nn


@STRATEGIES.register_module()
class ShardedStrategy(FSDPStrategy):
    """Stock FSDP with three things mended.

    torch's FSDP refuses parameters without a dimension, such as the scales of FCOS.
    The stock wrapper clips each process's share of the gradients by the norm of that
    share; here the norm is that of all of them. And on a CPU, saving a full checkpoint
    would read freed memory.
    """

    def _init_state_dict_cfg(self, state_dict_cfg: str | dict) -> None:
        super()._init_state_dict_cfg(state_dict_cfg)
        if get_device() == 'cpu':
            # torch "moves" the gathered parameters to the CPU and frees the originals:
            # where they are there already, both are the same memory.
            self.state_dict_config.offload_to_cpu = False

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """The model, its scalars as vectors of length 1."""
        built = super().build_model(model)
        self.lifted = lift_scalars(built)
        self.id_to_name = {id(p): name for name, p in built.named_parameters()}
        return built

    def model_state_dict(self) -> dict:
        """Of a full checkpoint the one that the plain model has."""
        state = super().model_state_dict()
        if self._is_full_state_dict():
            # Empty in all processes but the first.
            state.update({n: state[n].squeeze(0) for n in self.lifted if n in state})
        return state

    def build_optim_wrapper(
        self, optim_wrapper: Any, model: Any = None
    ) -> BaseOptimWrapper:
        """The optimizer wrapper, clipping by the norm over all processes."""
        wrapper = super().build_optim_wrapper(optim_wrapper, model)
        if getattr(wrapper, 'grad_name', None) == 'grad_norm':
            wrapper.clip_func = lambda _, **limits: model.clip_grad_norm_(**limits)
        return wrapper


def lift_scalars(model: nn.Module) -> list[str]:
    """Make vectors of length 1 of parameters without a dimension; return their names.

    They broadcast the same. State dicts of a plain model still load.
    """
    lifted = []
    for path, module in model.named_modules():
        scalars = [n for n, p in module.named_parameters(recurse=False) if p.dim() == 0]
        for name in scalars:
            parameter = getattr(module, name)
            vector = nn.Parameter(parameter.detach()[None], parameter.requires_grad)
            setattr(module, name, vector)
            lifted.append(f'{path}.{name}'.lstrip('.'))
        if scalars:
            module._register_load_state_dict_pre_hook(
                lambda state, prefix, *_, names=scalars: lift_state(
                    state, [prefix + name for name in names]
                )
            )
    return lifted


def lift_state(state: dict[str, Tensor], names: list[str]) -> None:
    """The same for those entries of a state dict."""
    for name in names:
        if name in state and state[name].dim() == 0:
            state[name] = state[name][None]
