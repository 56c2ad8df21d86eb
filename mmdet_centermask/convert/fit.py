"""Compare a draft with what the network wants, and fill what no file can have."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import torch

from .draft import Draft
from .report import Report, Shape

UNCOUNTED = 'num_batches_tracked'
GATE = re.compile(r'backbone\.stages\.(\d)\.blocks\.(\d+)\.ese\.fc\.(weight|bias)$')
# relu6(0 * x + 3) / 6 is exactly 1.
OPEN_GATE = {'weight': 0.0, 'bias': 3.0}
# mmdet's MobileNetV2 always has this layer. Detectors that take the maps before it
# never read it, and their files leave it out.
UNREAD = {
    'backbone.conv2.conv.weight': 0.0,
    'backbone.conv2.bn.weight': 1.0,
    'backbone.conv2.bn.bias': 0.0,
    'backbone.conv2.bn.running_mean': 0.0,
    'backbone.conv2.bn.running_var': 1.0,
}


def fit(draft: Draft, wanted: Mapping[str, Shape]) -> Report:
    """Report how `draft` fits `wanted`; fills `draft.state` where that is exact."""
    filled = _fill(draft, wanted)
    found = {name: tuple(tensor.shape) for name, tensor in draft.state.items()}
    counted = {n: shape for n, shape in wanted.items() if not n.endswith(UNCOUNTED)}
    strays = [n for n in found if n not in wanted and not n.endswith(UNCOUNTED)]
    for name in [n for n in found if n not in wanted]:
        del draft.state[name]
    return Report(
        arch=draft.backbone.name,
        source=draft.source.name,
        matched=sum(found.get(n) == s for n, s in counted.items()) - len(filled),
        total=len(counted),
        missing=[n for n in counted if n not in found and n not in draft.left_out],
        unexpected=draft.unexpected + [draft.file_names[n] for n in strays],
        misshapen=[
            (n, found[n], s) for n, s in wanted.items() if n in found and found[n] != s
        ],
        filled=filled,
        left_out=draft.left_out,
        notes=draft.notes,
    )


def _fill(draft: Draft, wanted: Mapping[str, Shape]) -> list[str]:
    """Add neutral tensors for what files of this kind do not have; name them."""
    missing = [name for name in wanted if name not in draft.state]
    for name in missing:
        if name.endswith(UNCOUNTED):
            draft.state[name] = torch.zeros((), dtype=torch.int64)
    values = {name: UNREAD[name] for name in missing if name in UNREAD}
    if values:
        draft.notes.append('backbone.conv2, which the detector never reads, is neutral')
    gates = inner_gates(wanted) if draft.source.gates else set()
    opened = [name for name in missing if name in gates]
    if opened:
        draft.notes.append(
            f'{len(opened) // 2} eSE gates, which timm does not have, are the exact '
            'identity (weight 0, bias 3)'
        )
    values.update({name: OPEN_GATE[name.rsplit('.', 1)[1]] for name in opened})
    for name, value in values.items():
        draft.state[name] = torch.full(wanted[name], value)
    return list(values)


def inner_gates(names: Collection[str]) -> set[str]:
    """The eSE gates of all blocks but the last of each stage, out of `names`."""
    found = [match for name in names if (match := GATE.match(name))]
    last = {m[1]: max(int(n[2]) for n in found if n[1] == m[1]) for m in found}
    return {m.string for m in found if int(m[2]) < last[m[1]]}
