"""A tiny CenterMask that learns within seconds, and one that has learnt something."""

from __future__ import annotations

from functools import cache
from itertools import cycle, islice

import torch
from mmengine.config import Config
from tiny_centermask import CONFIGS, batch_of, picture, tiny_model, total
from torch import nn

BOXES = (
    [(6, 8, 44, 50), (52, 40, 90, 88)],
    [(30, 4, 80, 40)],
    [(10, 50, 40, 90), (50, 8, 86, 44), (60, 60, 90, 90)],
)


def learner() -> nn.Module:
    """The seeded tiny model, as the configs start from scratch: norm layers learn."""
    start = Config.fromfile(CONFIGS / '_base_' / 'fcos_scratch.py').fcos_scratch
    return tiny_model(
        backbone__norm_cfg=dict(type='BN', requires_grad=True),
        backbone__norm_eval=False,
        bbox_head__init_cfg=start,
    )


def fit(model: nn.Module, batches: list, steps: int) -> list[float]:
    """Learn the batches in turn; the loss of each step. Leaves ``model`` in eval."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    history = []
    for batch in islice(cycle(batches), steps):
        loss = total(model.loss(*batch))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10)
        optimizer.step()
        history.append(loss.item())
    model.eval()
    return history


@cache
def trained_model() -> nn.Module:
    """Overfitted to three pictures, in eval mode; shared, so leave it as is.

    Every other batch has a larger picture in it, so that the network has met padding,
    as one trained on pictures of many sizes has.
    """
    model = learner()
    pictures = [picture(96, 96, boxes, seed=i) for i, boxes in enumerate(BOXES)]
    larger = picture(128, 160, [(20, 30, 90, 110)], seed=9)
    batches = [
        batch_of(model, *pictures, training=True),
        batch_of(model, *pictures, larger, training=True),
    ]
    fit(model, batches, steps=80)
    return model
