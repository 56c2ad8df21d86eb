"""Hold a network's answers against a golden: what is compared, and how closely."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from .golden import split_name
from .panoptic import segment_table

Arrays = Mapping[str, np.ndarray]


class Limit(NamedTuple):
    """How closely the quantities whose names match `pattern` have to agree.

    `of` is what `value` holds for: the largest difference, the same relative to the
    golden's largest absolute number, or the share of unequal entries. Without a value
    it is only reported. A quantity that is not `required` may lack an answer.
    """

    pattern: str
    value: float | None
    of: str = 'largest'
    required: bool = True


LIMITS = (
    # A network may give fewer maps of its backbone than the reference does.
    Limit(r'[ab]/backbone/', 1e-4, 'relative', required=False),
    Limit(r'[ab]/(fpn|cls|reg|ctr)/', 1e-4, 'relative'),
    Limit(r'[ab]/(final_)?boxes$', 0.01),
    Limit(r'[ab]/(final_)?labels$', 0, 'share'),
    Limit(r'[ab]/(final_)?(mask_)?scores$', 1e-4),
    Limit(r'[ab]/mask_probs$', 1e-3),
    Limit(r'train/loss_fcos_(cls|ctr)$', 1e-4),
    Limit(r'train/loss_(fcos_loc|mask|maskiou)$', None),
    # By the reference's rules. One pixel of a mask that falls on the other side of
    # its threshold moves the last of them by up to a percent.
    Limit(r'train/loss_fcos_loc\*$', 1e-4),
    Limit(r'train/loss_mask\*$', 1e-3),
    Limit(r'train/loss_maskiou\*$', None),
    Limit(r'[ab]/sem_logits$', 1e-4, 'relative', required=False),
    Limit(r'[ab]/(sem_argmax|panoptic)$', 1e-3, 'share', required=False),
    Limit(r'[ab]/panoptic_info$', 0, 'share', required=False),
    Limit('', None, required=False),
)
WORST_MASK, MEAN_MASK = 0.01, 0.001  # 1 - IoU
TIE = 1e-5  # scores that differ by less may stand in either order

# What belongs to detections row by row, before and after the mask branch.
DETECTIONS = {
    '': ('boxes', 'scores', 'labels', 'mask_scores', 'mask_probs'),
    'final_': ('boxes', 'scores', 'labels', 'mask_scores', 'masks_packed'),
}
# The training step's question, not an answer.
QUESTIONS = ('train/polygons', 'train/labels')


class Row(NamedTuple):
    """One line of the report; no `difference` means that nothing was compared."""

    quantity: str
    difference: float | None
    relative: float | None
    limit: Limit

    @property
    def verdict(self) -> str:
        if self.difference is None:
            return 'FAIL' if self.limit.required else 'not compared'
        if self.limit.value is None:
            return 'reported'
        held = self.relative if self.limit.of == 'relative' else self.difference
        # This way round nan fails.
        return 'ok' if held is not None and held <= self.limit.value else 'FAIL'


def compare(golden: Arrays, answers: Arrays) -> list[Row]:
    """One row for every quantity of `golden`, and those derived from detections.

    Args:
        golden: As `load_golden` gives it.
        answers: As `predict_answers` and `training_answers` give them; those that the
            golden does not ask for are left out.
    """
    answers = dict(answers)
    rows: list[Row] = []
    for case in sorted({name.split('/')[0] for name in golden} - {'train'}):
        for prefix, members in DETECTIONS.items():
            rows += _put_in_order(golden, answers, f'{case}/{prefix}', members)
    for full_name, wanted in golden.items():
        name, step = split_name(full_name)
        if name in QUESTIONS:
            continue
        if name.endswith('/panoptic_info'):
            wanted = segment_table(wanted)
        answer = answers.get(name.replace('/res', '/stage'))
        if name.endswith('/final_masks_packed'):
            rows += _mask_rows(name, wanted, answer)
        else:
            rows.append(_row(name, wanted, answer, step))
        if f'{name}*' in answers:
            by_rule = _row(f'{name}*', wanted, answers[f'{name}*'], step)
            rows.append(by_rule._replace(quantity=f"{name}, reference's rule"))
    return rows


def _row(name: str, wanted: np.ndarray, answer: np.ndarray | None, step: int) -> Row:
    limit = next(limit for limit in LIMITS if re.match(limit.pattern, name))
    if answer is None:
        return Row(name, None, None, limit)
    if step > 1:
        answer = answer.ravel()[::step]
    if answer.shape != wanted.shape:
        return Row(name, np.inf, np.inf, limit)
    if limit.of == 'share':
        return Row(name, float(np.mean(answer != wanted)), None, limit)
    wanted = wanted.astype(np.float64)
    difference = float(np.abs(wanted - answer).max(initial=0))
    largest = float(np.abs(wanted).max(initial=0))
    return Row(name, difference, difference / largest if largest else None, limit)


def _put_in_order(
    golden: Arrays, answers: dict[str, np.ndarray], prefix: str, members: tuple
) -> Iterator[Row]:
    """Put the answers' detections in the golden's order; report number and order."""
    names = [f'{prefix}{member}' for member in members]
    boxes, scores, labels = names[:3]
    if boxes not in golden or boxes not in answers:
        return
    found, wanted = len(answers[boxes]), len(golden[boxes])
    number = Limit('', 0)
    yield Row(f'{prefix}number', abs(found - wanted), None, number)
    if found != wanted or not found:
        return
    places = match(golden[boxes], golden[labels], answers[boxes], answers[labels])
    for name in names:
        if name in answers:
            answers[name] = answers[name][places]
    # A detection stands where one of (nearly) the same score belongs.
    moved = np.abs(golden[scores] - golden[scores][places])
    yield Row(f'{prefix}order', float(moved.max()), None, Limit('', TIE))


def match(
    boxes: np.ndarray, labels: np.ndarray, our_boxes: np.ndarray, our_labels: np.ndarray
) -> np.ndarray:
    """For each of `n` detections the place of its counterpart among ours, each once.

    The counterpart is the nearest box of the same label; where there is none left,
    any that is left, so that the comparison shows the difference.
    """
    distance = np.abs(boxes[:, None] - our_boxes[None]).max(-1)
    distance[labels[:, None] != our_labels[None]] = np.inf
    places = np.full(len(boxes), -1)
    for row in range(len(boxes)):
        nearest = int(distance[row].argmin())
        if np.isfinite(distance[row, nearest]):
            places[row] = nearest
            distance[:, nearest] = np.inf
    places[places < 0] = np.setdiff1d(np.arange(len(boxes)), places)
    return places


def _mask_rows(name: str, packed: np.ndarray, masks: np.ndarray | None) -> list[Row]:
    """How far the worst mask is from IoU 1, and the mean."""
    name = name.removesuffix('_packed')
    values = [np.inf, np.inf]
    if masks is not None:
        count = masks.size
        if packed.size == -(-count // 8):
            wanted = np.unpackbits(packed)[:count].reshape(masks.shape).astype(bool)
            off = 1 - mask_ious(masks.astype(bool), wanted)
            values = [off.max(initial=0), off.mean() if len(off) else 0.0]
    limits = Limit('', WORST_MASK), Limit('', MEAN_MASK)
    labels = f'{name}, worst 1 - IoU', f'{name}, mean 1 - IoU'
    return [Row(*row) for row in zip(labels, values, (None, None), limits, strict=True)]


def mask_ious(masks: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU `(n,)` of the masks `(n, H, W)`, pair by pair; two empty ones agree."""
    union = (masks | others).sum((1, 2))
    return np.where(union, (masks & others).sum((1, 2)) / np.maximum(union, 1), 1.0)


def as_table(rows: list[Row]) -> str:
    """The rows as text, a line each."""
    width = max(len(row.quantity) for row in rows)
    head = f'{"quantity":{width}}  difference  relative  limit          verdict'
    lines = [head, '-' * len(head)]
    for row in rows:
        limit = '-'
        if row.limit.value is not None:
            limit = f'{row.limit.value:g}'
            limit += '' if row.limit.of == 'largest' else f' {row.limit.of}'
        lines.append(
            f'{row.quantity:{width}}  {_number(row.difference):>10}  '
            f'{_number(row.relative):>8}  {limit:13}  {row.verdict}'
        )
    return '\n'.join(lines)


def _number(value: float | None) -> str:
    return '-' if value is None else f'{value:.2e}'
