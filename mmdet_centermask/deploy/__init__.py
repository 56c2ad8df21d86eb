"""A trained network outside of PyTorch: see docs/deployment.md.

Needs the packages of the extra `export`, and a torch whose ONNX exporter starts from
`torch.export`.
"""

from ..environment import torch_release

if torch_release() < (2, 9):
    raise ImportError(
        'mmdet_centermask.deploy needs torch 2.9 or later, and here is '
        f'{".".join(map(str, torch_release()))}'
    )
