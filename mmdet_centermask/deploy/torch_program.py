"""The network as a program of `torch.export`: for ONNX, and for PyTorch itself.

A saved program runs without this package's Python code of the network, but in PyTorch,
and with our two operators: `import mmdet_centermask.deploy.operators` first. Call it as
`program.module(check_guards=False)`: torch notes that no map of the example has a side
of 1, where it would broadcast, and its guards refuse small pictures for that; the
answers for them are right.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from .exportable_centermask import Detections, ExportableCenterMask

# A saved program has to name the type of its answer.
torch.utils._pytree._register_namedtuple(
    Detections, serialized_type_name='mmdet_centermask.Detections'
)

# Two pictures, and no map of the pyramid with a side of 1: `torch.export` takes such
# lengths for constants.
EXAMPLE = (2, 3, 192, 256)


def exported_program(net: ExportableCenterMask) -> torch.export.ExportedProgram:
    """`net` as a graph; the number of pictures, height and width are free."""
    batch, height, width = (
        torch.export.Dim(name, min=1, max=2**16)
        for name in ('batch', 'rows', 'columns')
    )
    images = torch.zeros(EXAMPLE)
    sizes = torch.tensor([EXAMPLE[2:]]).repeat(len(images), 1)
    shapes = {0: batch, 2: 32 * height, 3: 32 * width}, {0: batch}
    with torch.no_grad(), warnings.catch_warnings():
        # torch's own deprecations, several hundred times.
        warnings.simplefilter('ignore')
        return torch.export.export(net, (images, sizes), dynamic_shapes=shapes)


def write_program(net: ExportableCenterMask, path: str | Path) -> None:
    """Save `net` for `torch.export.load`."""
    torch.export.save(exported_program(net), path)
