"""A checkpoint on its way into this package's names, and the steps it takes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mmdet.evaluation import get_classes
from torch import Tensor

from . import transforms
from .rename import rename
from .report import ConversionError
from .sources import ARCH_PIXELS, Pixels, Source, find_source
from .targets import Backbone, detect_backbone

# Layers with a row for each class, in all heads.
CLASS_LAYERS = re.compile(
    r'(bbox_head\.conv_cls|roi_head\.mask_head\.conv_logits'
    r'|roi_head\.mask_iou_head\.fc_mask_iou)\.'
)
FIRST_CONV = 'backbone.stem.0.conv.weight'


@dataclass
class Draft:
    """Renamed tensors and what is to be said about them.

    Attributes:
        source: The kind of file.
        backbone: The backbone it holds.
        pixels: What the network was trained on.
        state: Tensors in the names of this package, prefix `backbone.` included.
        file_names: For each of them its name in the file.
        num_classes: Classes of the result; None where there is no detector.
        class_names: Their names, where known.
        kept: Which classes of the file they are, where chosen.
        bare: Whether the result is a backbone only.
        unexpected: Names of the file that no rule has a place for.
        left_out: Names taken out of `state` because they count classes.
        notes: Sentences for the report.
    """

    source: Source
    backbone: Backbone
    pixels: Pixels
    state: dict[str, Tensor]
    file_names: dict[str, str]
    num_classes: int | None
    class_names: tuple[str, ...] | None
    bare: bool
    unexpected: list[str]
    kept: list[int] | None = None
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def start(tensors: Mapping[str, Tensor], slug: str | None = None) -> Draft:
    """Find the kind of file, give every tensor its new name, fix the numbers.

    Args:
        tensors: As `read_tensors` gives them.
        slug: Take the file for this kind.

    Raises:
        ConversionError: No known kind or backbone, or two tensors for one name.
    """
    source = find_source(tensors, slug)
    pixels = {n: tensors[n] for n in ('pixel_mean', 'pixel_std') if n in tensors}
    tensors = {n: t for n, t in tensors.items() if n not in pixels}
    behind = {old for old in tensors if re.match(source.leave, old)}
    new_names = {old: new_name(old, source) for old in tensors if old not in behind}
    file_names = _inverse(new_names)
    state = {new: tensors[old] for new, old in file_names.items()}
    notes = _fix_numbers(state, source)
    if behind:
        notes.append(f'{len(behind)} tensors stay behind: {_top_level(behind)}')
    backbone = detect_backbone(state)
    known = ARCH_PIXELS.get((source.name, backbone.name), source.pixels)
    count = _rows(state)
    coco = tuple(get_classes('coco'))
    return Draft(
        source=source,
        backbone=backbone,
        pixels=_overrule(known, pixels),
        state=state,
        file_names=file_names,
        num_classes=count,
        class_names=coco if count == len(coco) else None,
        bare=source.backbone_only,
        unexpected=[old for old, new in new_names.items() if new is None],
        notes=notes,
    )


def new_name(old: str, source: Source) -> str | None:
    """The name for `old` by the first part that claims it."""
    for part in source.parts:
        if claimed := re.match(part.prefix, old):
            return part.target + rename(old[claimed.end() :], part.rules)
    return None


def _inverse(new_names: Mapping[str, str | None]) -> dict[str, str]:
    inverse: dict[str, str] = {}
    for old, new in new_names.items():
        if new in inverse:
            raise ConversionError(f'two tensors for {new}: {inverse[new]} and {old}')
        if new is not None:
            inverse[new] = old
    return inverse


def _overrule(known: Pixels, found: Mapping[str, Tensor]) -> Pixels:
    """What the kind of file says of pixels, but for what the file itself says."""
    stated: dict[str, Any] = {
        # What float32 adds to 116.28 is no part of the number.
        name.removeprefix('pixel_'): tuple(round(x, 4) for x in t.flatten().tolist())
        for name, t in found.items()
    }
    return replace(known, **stated)


def _fix_numbers(state: dict[str, Tensor], source: Source) -> list[str]:
    """Change the numbers as this kind of file needs it; return what to say."""
    notes = []
    for fix in source.fixes:
        touched = [name for name in state if re.match(fix.pattern, name)]
        for name in touched:
            state[name] = fix.change(state[name])
        if touched and fix.note:
            notes.append(fix.note)
    return notes


def _rows(state: Mapping[str, Tensor]) -> int | None:
    """Classes of the first layer that counts them."""
    biases = (n for n in state if CLASS_LAYERS.match(n) and n.endswith('.bias'))
    name = next(biases, None)
    return None if name is None else state[name].shape[0]


def _top_level(names: Iterable[str]) -> str:
    counts = Counter(name.split('.')[0] for name in names)
    return ', '.join(f'{name} ({n})' for name, n in sorted(counts.items()))


def fold_rgb(draft: Draft) -> None:
    """Make the first conv see BGR pixels of std 1.

    Raises:
        ConversionError: It does so already, or it cannot be made exact.
    """
    pixels = draft.pixels
    if not pixels.bgr_to_rgb or FIRST_CONV not in draft.state:
        raise ConversionError(f'fold_rgb: {draft.source.name} sees BGR pixels already')
    if pixels.mean != transforms.IMAGENET_MEAN:
        raise ConversionError(
            f'fold_rgb: {draft.backbone.name} was trained with mean '
            f'{list(pixels.mean)}, which cannot be folded exactly, because padding is '
            'added after it; let it keep its own preprocessor'
        )
    draft.state[FIRST_CONV] = transforms.fold_rgb(draft.state[FIRST_CONV], pixels.std)
    draft.pixels = Pixels()
    draft.notes.append('RGB and std folded into the first conv: it sees BGR, std 1')


def keep_classes(draft: Draft, classes: Sequence[int]) -> None:
    """Keep the rows of `classes`, in this order, in every layer that has rows.

    Raises:
        ConversionError: A class is out of range or named twice, or there are none.
    """
    count = _class_count(draft)
    if not classes or len(set(classes)) != len(classes):
        raise ConversionError(f'classes={list(classes)} must name classes, each once')
    wrong = [c for c in classes if not 0 <= c < count]
    if wrong:
        raise ConversionError(f'classes={wrong}: the file has classes 0 to {count - 1}')
    for name, tensor in draft.state.items():
        if CLASS_LAYERS.match(name) and tensor.shape[0] == count:
            draft.state[name] = transforms.select_rows(tensor, classes)
    draft.kept, draft.num_classes = list(classes), len(classes)
    if draft.class_names is not None:
        draft.class_names = tuple(draft.class_names[c] for c in classes)


def drop_class_rows(draft: Draft, num_classes: int) -> None:
    """Take the layers with class rows out, for a model of `num_classes`.

    Raises:
        ConversionError: There are none, or `num_classes` is below 1.
    """
    count = _class_count(draft)
    if num_classes < 1:
        raise ConversionError(f'num_classes={num_classes} must be at least 1')
    draft.left_out = [name for name in draft.state if CLASS_LAYERS.match(name)]
    for name in draft.left_out:
        del draft.state[name]
    draft.num_classes, draft.class_names = num_classes, None
    draft.notes.append(
        f'left out are the class rows: {count} in the file, {num_classes} in the '
        'model, which learns them anew'
    )


def _class_count(draft: Draft) -> int:
    if draft.num_classes is None:
        raise ConversionError('there are no class rows to select from')
    return draft.num_classes


def only_backbone(draft: Draft) -> None:
    """Forget everything but the backbone."""
    draft.state = {n: t for n, t in draft.state.items() if n.startswith('backbone.')}
    draft.unexpected, draft.bare = [], True
    draft.num_classes = draft.class_names = None
