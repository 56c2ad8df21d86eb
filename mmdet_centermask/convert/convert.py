"""From somebody's checkpoint to one of this package.

read -> find the kind, rename, change numbers -> select -> compare with the network
-> write. Nothing is written unless every tensor fits.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from . import draft as steps
from .draft import Draft
from .fit import fit
from .read import read_tensors, sha256_of
from .report import ConversionError, Report
from .sources import Pixels
from .targets import shipped_config, wanted_shapes


def convert_checkpoint(
    src: str | Path,
    dst: str | Path,
    *,
    source: str | None = None,
    config: str | Path | None = None,
    classes: Sequence[int] | None = None,
    num_classes: int | None = None,
    backbone_only: bool = False,
    fold_rgb: bool = False,
    trust: bool = False,
) -> Report:
    """Convert the checkpoint `src` and write the result to `dst`, if all fits.

    A file that holds a detector gives a detector's checkpoint. One that holds a
    backbone, or `backbone_only`, gives names without a prefix, as the backbone's
    `init_cfg=dict(type='Pretrained', checkpoint=dst)` wants them.

    Args:
        src: What `read.read_tensors` reads.
        dst: Replaced in one step if it exists; folders are made.
        source: Read `src` as this kind (`sources.Source.slug`); found by default.
        config: Fit the model of this MMEngine config, not the one of the paper.
        classes: Keep the rows of these classes, in this order.
        num_classes: Leave the class rows out, for a model of that many classes.
        backbone_only: Keep the backbone only.
        fold_rgb: Make a first conv for RGB with std one for BGR without (timm).
        trust: Read a bare pickle too, NumPy arrays only.

    Returns:
        The report; its `written` is None where something did not fit.

    Raises:
        ConversionError: `src` cannot be read or is of no known kind, or the options
            do not go with it. Nothing is written.
    """
    src, dst = Path(src), Path(dst)
    if classes is not None and num_classes is not None:
        raise ConversionError('classes and num_classes exclude each other')
    if dst.is_dir() or (dst.exists() and src.exists() and dst.samefile(src)):
        raise ConversionError(f'{dst}: a folder or the source, no place to write')
    try:
        draft = steps.start(read_tensors(src, trust=trust), source)
        if fold_rgb:
            steps.fold_rgb(draft)
        if backbone_only:
            steps.only_backbone(draft)
        if classes is not None:
            steps.keep_classes(draft, classes)
        if num_classes is not None:
            steps.drop_class_rows(draft, num_classes)
        report = fit(draft, wanted_shapes(draft, config))
    except ConversionError as error:
        raise ConversionError(f'{src}: {error}') from error.__cause__
    if report.fits:
        report.notes += advice(draft, dst)
        _write(_checkpoint(draft, report, src), dst)
        report.written = dst
    return report


def advice(draft: Draft, dst: Path) -> list[str]:
    """What a config has to say so that the result computes what it used to."""
    lines = list(draft.source.notes)
    pixels = draft.pixels
    if pixels != Pixels():
        lines.append(
            f'data_preprocessor: mean={list(pixels.mean)}, std={list(pixels.std)}, '
            f'bgr_to_rgb={pixels.bgr_to_rgb}'
        )
    if draft.bare:
        lines.append(f"backbone: init_cfg=dict(type='Pretrained', checkpoint='{dst}')")
    elif name := shipped_config(draft):
        lines.append(f'config: {name}')
    return lines


def _checkpoint(draft: Draft, report: Report, src: Path) -> dict[str, Any]:
    """What is saved: nothing that `torch.load(weights_only=True)` would refuse."""
    meta = dict(
        source=report.source,
        arch=report.arch,
        source_file=src.name,
        sha256=sha256_of(src),
        mmdet_centermask=__version__,
        pixels=asdict(draft.pixels),
        config=None if draft.bare else shipped_config(draft),
        num_classes=draft.num_classes,
        kept_classes=draft.kept,
        filled=report.filled,
        left_out=report.left_out,
        notes=report.notes,
    )
    if draft.class_names is not None:
        meta['dataset_meta'] = dict(classes=draft.class_names)
    prefix = 'backbone.' if draft.bare else ''
    state = {name.removeprefix(prefix): t for name, t in draft.state.items()}
    return dict(meta=meta, state_dict=state)


def _write(checkpoint: dict[str, Any], dst: Path) -> None:
    """Save under another name, then rename: `dst` is whole or untouched."""
    dst.parent.mkdir(parents=True, exist_ok=True)
    part = dst.with_name(f'.{dst.name}.{os.getpid()}.part')
    try:
        torch.save(checkpoint, part)
        part.replace(dst)
    finally:
        part.unlink(missing_ok=True)
