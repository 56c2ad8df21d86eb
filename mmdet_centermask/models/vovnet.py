"""VoVNetV2: One-Shot Aggregation with effective Squeeze-Excitation.

An Energy and GPU-Computation Efficient Backbone Network (VoVNet,
https://arxiv.org/abs/1904.09730) concatenates all layers of a block once, at
its end. CenterMask (https://arxiv.org/abs/1911.06667, section 3.3) adds an
identity path and the channel gate eSE, which makes it VoVNetV2.

Block -> stage -> network, and the variants as one table of plain numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmdet.registry import MODELS
from mmdet.utils import ConfigType, OptConfigType, OptMultiConfig
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .float32 import float32_island, run_in_float32
from .pretrained import load_pretrained
from .recompute import recompute


class Arch(NamedTuple):
    """One VoVNet variant; the numbers of a stage in the order of stages 2 to 5."""

    stem: tuple[int, int, int]
    conv_channels: tuple[int, int, int, int]
    out_channels: tuple[int, int, int, int]
    layers_per_block: int
    blocks: tuple[int, int, int, int]
    depthwise: bool = False


_STEM, _DW_STEM = (64, 64, 128), (64, 64, 64)
_SLIM = (64, 80, 96, 112), (112, 256, 384, 512)
_FULL = (128, 160, 192, 224), (256, 512, 768, 1024)

ARCHS: dict[str, Arch] = {
    'V-19-slim-dw': Arch(_DW_STEM, *_SLIM, 3, (1, 1, 1, 1), depthwise=True),
    'V-19-dw': Arch(_DW_STEM, *_FULL, 3, (1, 1, 1, 1), depthwise=True),
    'V-19-slim': Arch(_STEM, *_SLIM, 3, (1, 1, 1, 1)),
    'V-19': Arch(_STEM, *_FULL, 3, (1, 1, 1, 1)),
    'V-39': Arch(_STEM, *_FULL, 5, (1, 1, 2, 2)),
    'V-57': Arch(_STEM, *_FULL, 5, (1, 1, 4, 3)),
    'V-99': Arch(_STEM, *_FULL, 5, (1, 3, 9, 3)),
}


class EffectiveSE(nn.Module):
    """Channel gate with a single full-width 1x1 conv (CenterMask, eq. 5 and 6).

    Args:
        channels: Width of the feature map.

    Shape:
        ``(N, channels, H, W)`` in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        # One number for a whole map: under autocast too, it is worth float32.
        with float32_island(x.device):
            gate = F.hardsigmoid(self.fc(spatial_mean(x, self.fc.weight.dtype)))
        return x * gate.to(x.dtype)


def spatial_mean(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Mean of each channel, ``(N, C, H, W)`` to ``(N, C, 1, 1)`` in ``dtype``."""
    if x.dtype == dtype == torch.bfloat16:
        # mean() would copy the whole map to float32 on a CPU; sum() adds up in float32
        # without. float16 could not hold the sum.
        return x.sum((2, 3), keepdim=True) / (x.shape[2] * x.shape[3])
    return x.mean((2, 3), keepdim=True, dtype=dtype)


class DepthwiseSeparableConv(nn.Sequential):
    """3x3 depthwise conv, then 1x1 conv + norm + ReLU.

    mmcv's ``DepthwiseSeparableConvModule`` keeps a bias-free norm or activation
    slot behind the depthwise conv; VoVNet has nothing there.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, norm_cfg: ConfigType
    ):
        super().__init__()
        self.depthwise = nn.Conv2d(
            in_channels,
            in_channels,
            3,
            stride,
            padding=1,
            groups=in_channels,
            bias=False,
        )
        self.pointwise = ConvModule(in_channels, out_channels, 1, norm_cfg=norm_cfg)


def conv3x3(
    in_channels: int,
    out_channels: int,
    *,
    stride: int = 1,
    depthwise: bool = False,
    conv_cfg: OptConfigType = None,
    norm_cfg: ConfigType,
) -> nn.Module:
    """The 3x3 conv + norm + ReLU that stem and blocks are made of."""
    if depthwise:
        return DepthwiseSeparableConv(in_channels, out_channels, stride, norm_cfg)
    return ConvModule(
        in_channels,
        out_channels,
        3,
        stride,
        padding=1,
        conv_cfg=conv_cfg,
        norm_cfg=norm_cfg,
    )


class OSABlock(nn.Module):
    """One-Shot Aggregation block with eSE (CenterMask, figure 3c).

    Args:
        in_channels: Width of the input.
        conv_channels: Width of each 3x3 conv.
        out_channels: Width after the aggregation.
        num_layers: Number of 3x3 convs in the chain.
        identity: Add the input to the output; widths must agree.
        depthwise: Depthwise-separable convs. A 1x1 conv then brings the input
            to ``conv_channels`` first where the two differ.
        conv_cfg: Conv of the chain, such as ``dict(type='DCNv2')``.
        norm_cfg: Norm layer.
        with_cp: Recompute the block in the backward pass to save memory.

    Shape:
        ``(N, in_channels, H, W)`` to ``(N, out_channels, H, W)``.
    """

    def __init__(
        self,
        in_channels: int,
        conv_channels: int,
        out_channels: int,
        num_layers: int,
        *,
        identity: bool = False,
        depthwise: bool = False,
        conv_cfg: OptConfigType = None,
        norm_cfg: ConfigType,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        self.identity = identity
        self.with_cp = with_cp
        self.deformable = conv_cfg is not None
        self.reduction: nn.Module = nn.Identity()
        width = in_channels
        if depthwise and in_channels != conv_channels:
            self.reduction = ConvModule(
                in_channels, conv_channels, 1, norm_cfg=norm_cfg
            )
            width = conv_channels
        self.layers = nn.ModuleList(
            conv3x3(
                width if i == 0 else conv_channels,
                conv_channels,
                depthwise=depthwise,
                conv_cfg=conv_cfg,
                norm_cfg=norm_cfg,
            )
            for i in range(num_layers)
        )
        aggregated = in_channels + num_layers * conv_channels
        self.concat = ConvModule(aggregated, out_channels, 1, norm_cfg=norm_cfg)
        self.ese = EffectiveSE(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.with_cp and torch.is_grad_enabled():
            return recompute(self, self._aggregate, x)
        return self._aggregate(x)

    def _aggregate(self, x: Tensor) -> Tensor:
        features = [x]
        out = self.reduction(x)
        for layer in self.layers:
            # mmcv's deformable convolution has no bfloat16.
            out = run_in_float32(layer, out) if self.deformable else layer(out)
            features.append(out)
        out = self.ese(self.concat(torch.cat(features, dim=1)))
        return out + x if self.identity else out


class OSAStage(nn.Module):
    """Blocks of one resolution, behind a stride-2 pooling where ``downsample``."""

    def __init__(self, blocks: Sequence[OSABlock], *, downsample: bool) -> None:
        super().__init__()
        # ceil_mode: an even map keeps its last row and column, as the paper's
        # released networks do; padding=1 would compute something else.
        self.pool = (
            nn.MaxPool2d(3, stride=2, ceil_mode=True) if downsample else nn.Identity()
        )
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.pool(x))


@MODELS.register_module()
class VoVNet(BaseModule):
    """VoVNetV2 backbone.

    Args:
        arch: A key of :data:`ARCHS`, such as ``'V-39'``.
        in_channels: Channels of the picture.
        out_indices: Which of the four stages to return; 0 is stage 2 of the
            paper (stride 4), 3 is stage 5 (stride 32).
        frozen_stages: -1 freezes nothing, 0 the stem, ``n`` the stem and the
            first ``n`` stages: no gradients, norm layers in eval mode.
        norm_cfg: Norm layer. ``requires_grad=False`` freezes its weights.
        norm_eval: Keep the running statistics of batch norm fixed in training.
        with_cp: Recompute blocks in the backward pass to save memory.
        dcn: Deformable conv for the 3x3 convs of the stages in
            ``stage_with_dcn``, such as ``dict(type='DCNv2', deform_groups=1)``.
        stage_with_dcn: One flag for each of the four stages.
        init_cfg: Initialisation; Kaiming for convs by default.

    Attributes:
        out_channels: Channels of the returned maps; a neck's ``in_channels``.

    Returns of ``forward``:
        A tuple of maps ``(N, C_i, H / s_i, W / s_i)``, one for each of
        ``out_indices``, with strides ``s`` of 4, 8, 16, 32. The stem rounds
        ``H / 4`` up, the poolings round down.

    Raises:
        ValueError: An argument is out of range, or ``dcn`` meets a depthwise
            arch. From ``forward``: mmcv's first ``DCN`` meets a map under 3 x 3.
    """

    def __init__(
        self,
        arch: str,
        *,
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_cfg: ConfigType = dict(type='BN', requires_grad=True),  # noqa: B006
        norm_eval: bool = False,
        with_cp: bool = False,
        dcn: OptConfigType = None,
        stage_with_dcn: Sequence[bool] = (False, False, False, False),
        init_cfg: OptMultiConfig = None,
    ) -> None:
        if init_cfg is None:
            init_cfg = [
                dict(type='Kaiming', layer='Conv2d'),
                dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
            ]
        super().__init__(init_cfg=init_cfg)
        self.spec = _checked_arch(arch, out_indices, frozen_stages, dcn, stage_with_dcn)
        self.arch = arch
        self.out_indices = tuple(out_indices)
        self.out_channels = tuple(self.spec.out_channels[i] for i in out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.smallest_side = smallest_side(dcn, stage_with_dcn)
        self.stem = self._make_stem(in_channels, norm_cfg)
        self.stages = nn.ModuleList(
            self._make_stage(i, norm_cfg, with_cp, dcn if stage_with_dcn[i] else None)
            for i in range(4)
        )
        self._freeze_stages()

    def _make_stem(self, in_channels: int, norm_cfg: ConfigType) -> nn.Sequential:
        first, second, third = self.spec.stem
        depthwise = self.spec.depthwise
        return nn.Sequential(
            conv3x3(in_channels, first, stride=2, norm_cfg=norm_cfg),
            conv3x3(first, second, depthwise=depthwise, norm_cfg=norm_cfg),
            conv3x3(second, third, stride=2, depthwise=depthwise, norm_cfg=norm_cfg),
        )

    def _make_stage(
        self, index: int, norm_cfg: ConfigType, with_cp: bool, dcn: OptConfigType
    ) -> OSAStage:
        spec = self.spec
        out_channels = spec.out_channels[index]
        stage_in = spec.stem[-1] if index == 0 else spec.out_channels[index - 1]
        blocks = [
            OSABlock(
                stage_in if b == 0 else out_channels,
                spec.conv_channels[index],
                out_channels,
                spec.layers_per_block,
                identity=b > 0,
                depthwise=spec.depthwise,
                conv_cfg=dcn,
                norm_cfg=norm_cfg,
                with_cp=with_cp,
            )
            for b in range(spec.blocks[index])
        ]
        return OSAStage(blocks, downsample=index > 0)

    def init_weights(self) -> None:
        """Initialise; a ``Pretrained`` file has to fit, see :func:`load_pretrained`."""
        cfg = self.init_cfg
        if isinstance(cfg, dict) and cfg.get('type') == 'Pretrained':
            load_pretrained(self, cfg)
            self._is_init = True
            return
        super().init_weights()
        # Kaiming reaches the conv that predicts the offsets, a plain Conv2d; the
        # offsets start at zero.
        for module in self.modules():
            if hasattr(module, 'conv_offset'):
                nn.init.zeros_(module.conv_offset.weight)
                nn.init.zeros_(module.conv_offset.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        self._check_size(x)
        x = self.stem(x)
        outs = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)

    def _check_size(self, x: Tensor) -> None:
        if self.smallest_side and min(x.shape[-2:]) < self.smallest_side:
            raise ValueError(
                f'VoVNet: a picture of {x.shape[-2]} x {x.shape[-1]} is too small for '
                "dcn=dict(type='DCN'), which wants 3 x 3 pixels in its last stage; pad "
                f'it to {self.smallest_side} pixels a side, or take DCNv2'
            )

    def _freeze_stages(self) -> None:
        frozen = [self.stem, *self.stages][: self.frozen_stages + 1]
        for module in frozen:
            module.eval()
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> VoVNet:
        """Set training mode, minding ``frozen_stages`` and ``norm_eval``."""
        super().train(mode)
        if mode:
            self._freeze_stages()
            if self.norm_eval:
                for module in self.modules():
                    if isinstance(module, _BatchNorm):
                        module.eval()
        return self


def smallest_side(dcn: OptConfigType, stage_with_dcn: Sequence[bool]) -> int:
    """Least height and width of a picture, 0 without a limit.

    mmcv's ``DCN`` fails on maps smaller than its 3 x 3 kernel; ``DCNv2`` does not.
    """
    deformable = [i for i, flag in enumerate(stage_with_dcn) if flag]
    if not deformable or dcn is None or dcn['type'] != 'DCN':
        return 0
    # The stem leaves ceil(side / 4) of a side, and each pooling half of it.
    return 4 * (3 * 2 ** deformable[-1] - 1) + 1


def _checked_arch(
    arch: str,
    out_indices: Sequence[int],
    frozen_stages: int,
    dcn: OptConfigType,
    stage_with_dcn: Sequence[bool],
) -> Arch:
    """Look ``arch`` up; refuse what cannot be built with field and value."""
    if not isinstance(arch, str) or arch not in ARCHS:
        raise ValueError(
            f'VoVNet: arch={arch!r} is unknown, choose one of {", ".join(ARCHS)}'
        )
    is_row = isinstance(out_indices, list | tuple)
    rising = [i for i in range(4) if is_row and i in out_indices]
    if not rising or list(out_indices) != rising:
        raise ValueError(
            f'VoVNet: out_indices={out_indices} must be rising numbers out of '
            '0, 1, 2, 3 (0 is stage 2 with stride 4)'
        )
    if frozen_stages not in range(-1, 5):
        raise ValueError(f'VoVNet: frozen_stages={frozen_stages} must lie in -1..4')
    if not isinstance(stage_with_dcn, list | tuple) or len(stage_with_dcn) != 4:
        raise ValueError(
            f'VoVNet: stage_with_dcn={stage_with_dcn} must hold four flags'
        )
    if any(stage_with_dcn) and dcn is None:
        raise ValueError(
            f'VoVNet: stage_with_dcn={stage_with_dcn} needs dcn, such as '
            "dict(type='DCNv2')"
        )
    if any(stage_with_dcn) and ARCHS[arch].depthwise:
        raise ValueError(
            f'VoVNet: dcn={dcn} does not go with the depthwise arch={arch!r}'
        )
    return ARCHS[arch]
