"""Convolutions of a CPU with their weights in order and their ReLU inside.

oneDNN multiplies weights in blocks of its own order. ``nn.Conv2d`` brings them into
that order on every call, and writes its result before the ReLU reads it again. The
operator that ``torch.compile`` uses on a CPU takes ready blocks and applies the ReLU
on the way out; here it is called without compiling anything.
"""

from __future__ import annotations

import torch
from mmcv.cnn import Conv2d, ConvModule
from torch import Tensor, nn

from ..models.sag_mask_head import SAGMaskHead


class PackedConv2d(nn.Module):
    """An ``nn.Conv2d`` for inference on a CPU, with its weights in oneDNN's order.

    Args:
        conv: Zero-padded, in the dtype it is to compute in.
        relu: Apply a ReLU to the result.

    Shape:
        As ``conv``; the result lies in channels_last order.
    """

    def __init__(self, conv: nn.Conv2d, relu: bool = False) -> None:
        super().__init__()
        self.kernel_size = list(conv.kernel_size)
        self.out_channels = conv.out_channels
        self.padding = [int(p) for p in conv.padding]  # no 'same' or 'valid'
        self.stride = list(conv.stride)
        self.dilation, self.groups = list(conv.dilation), conv.groups
        # Plain attributes: nothing here is a parameter that could be saved.
        self.weight = conv.weight.detach().contiguous(memory_format=torch.channels_last)
        self.packed: Tensor | None = None
        self.packed_for = 0  # positions, over the batch
        self.bias = None if conv.bias is None else conv.bias.detach()
        self.activation = 'relu' if relu else 'none'

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] == 0:  # a picture without boxes; oneDNN refuses it
            return x.new_zeros(self._output_shape(x))
        positions = x.numel() // x.shape[1]
        if positions > 2 * self.packed_for:
            self._pack(x.shape)
            self.packed_for = positions
        return torch.ops.mkldnn._convolution_pointwise(
            x,
            self.packed,
            self.bias,
            self.padding,
            self.stride,
            self.dilation,
            self.groups,
            self.activation,
            [],
            '',
        )

    def _pack(self, shape: torch.Size) -> None:
        """Pack for inputs like this one.

        oneDNN's choice of blocks depends on the size of the map. Without one it
        guesses, and on some 1x1 convs of VoVNet the guess costs eight times the time;
        hence only now, and again when maps turn out larger.
        """
        self.packed = torch._C._nn.mkldnn_reorder_conv2d_weight(  # type: ignore[call-arg]
            self.weight.to_mkldnn(),
            self.padding,
            self.stride,
            self.dilation,
            self.groups,
            list(shape),
        )

    def _output_shape(self, x: Tensor) -> tuple[int, ...]:
        axes = zip(
            x.shape[2:],
            self.padding,
            self.stride,
            self.dilation,
            self.kernel_size,
            strict=True,
        )
        sizes = ((size + 2 * p - d * (k - 1) - 1) // s + 1 for size, p, s, d, k in axes)
        return (len(x), self.out_channels, *sizes)


def can_pack(dtype: torch.dtype) -> bool:
    """Whether this torch has oneDNN's operators, and this CPU what they need.

    In bfloat16 that is AVX-512, be it without units for bfloat16.
    """
    if not torch.backends.mkldnn.is_available() or not hasattr(
        torch.ops.mkldnn, '_convolution_pointwise'
    ):
        return False
    return dtype != torch.bfloat16 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def pack_convs(module: nn.Module) -> int:
    """Replace the convs below ``module`` by packed ones, in place.

    In a ``ConvModule`` whose norm is folded, the ReLU becomes part of the conv. Left
    alone are convs of another class (deformable, transposed) or padding.

    Returns:
        How many were replaced.
    """
    packed = 0
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if not isinstance(child, nn.Conv2d) or not _is_packable(child):
                continue
            if isinstance(parent, SAGMaskHead) and child is parent.conv_logits:
                continue  # computes the one channel that an RoI's class asks for
            relu = False
            if isinstance(parent, ConvModule) and _is_followed_by_relu(parent):
                parent.with_activation, relu = False, True
            replacement = PackedConv2d(child, relu)
            # Casts at its borders, see boundaries.py.
            replacement._forward_pre_hooks.update(child._forward_pre_hooks)
            replacement._forward_hooks.update(child._forward_hooks)
            setattr(parent, name, replacement)
            packed += 1
    return packed


def _is_packable(conv: nn.Conv2d) -> bool:
    # mmcv's conv is PyTorch's, but for empty maps in releases long gone.
    plain = type(conv) in (nn.Conv2d, Conv2d)
    return plain and conv.padding_mode == 'zeros' and not isinstance(conv.padding, str)


def _is_followed_by_relu(block: ConvModule) -> bool:
    """Whether the conv of ``block`` meets a ReLU, with nothing between them."""
    return (
        block.with_activation
        and type(block.activate) is nn.ReLU
        and (not block.with_norm or isinstance(block.norm, nn.Identity))
        and block.order.index('conv') < block.order.index('act')
    )
