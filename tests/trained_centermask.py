"""A tiny CenterMask that has learnt something: trained weights within seconds."""

from __future__ import annotations

from functools import cache

import torch
from tiny_centermask import batch_of, picture, tiny_model, total
from torch import nn

BOXES = (
    [(6, 8, 44, 50), (52, 40, 90, 88)],
    [(30, 4, 80, 40)],
    [(10, 50, 40, 90), (50, 8, 86, 44), (60, 60, 90, 90)],
)


@cache
def trained_model(steps: int = 60) -> nn.Module:
    """Seeded, overfitted to three pictures, in eval mode; shared, so leave it as is.

    Every other batch has a larger picture in it, so that the network has met padding,
    as one trained on pictures of many sizes has.
    """
    model = tiny_model(
        backbone__norm_cfg=dict(type='BN', requires_grad=True),
        backbone__norm_eval=False,
    )
    pictures = [picture(96, 96, boxes, seed=i) for i, boxes in enumerate(BOXES)]
    larger = picture(128, 160, [(20, 30, 90, 110)], seed=9)
    batches = [
        batch_of(model, *pictures, training=True),
        batch_of(model, *pictures, larger, training=True),
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    model.train()
    for step in range(steps):
        optimizer.zero_grad()
        total(model.loss(*batches[step % 2])).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10)
        optimizer.step()
    return model.eval()
