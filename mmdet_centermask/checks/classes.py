"""Do the classes of file, `metainfo` and model agree?

`CocoDataset` counts labels in the order of the file's `categories`, leaving out what
`metainfo.classes` does not name; the names of the labels come from
`metainfo.classes`. Nothing compares the two, and nothing compares their number with
the model's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .finding import Finding, Severity

COUNTS = ('num_classes', 'num_things_classes', 'num_stuff_classes')
# Parts that count something else than the data's classes.
OTHERS = ('semantic', 'rpn', 'auxiliary', 'backbone', 'neck')
SHOWN = 10  # names in a message


def class_counts(model: Any, path: str = 'model') -> Iterator[tuple[str, str, int]]:
    """Yield (field, `num_classes` or the like, number) of a model's config.

    Only of the model itself, of one it wraps, and of its heads.
    """
    if isinstance(model, Mapping):
        for name, value in model.items():
            field = f'{path}.{name}'
            if name not in COUNTS:
                yield from class_counts(value, field)
            elif isinstance(value, int) and counts_classes(path, name):
                yield field, name, value
    elif isinstance(model, (list, tuple)):
        for i, part in enumerate(model):
            yield from class_counts(part, f'{path}.{i}')


def counts_classes(path: str, name: str) -> bool:
    """Whether `name` in the part of the model at `path` counts the data's classes."""
    if name == 'num_classes' and any(other in path for other in OTHERS):
        return False
    return 'head' in path or path in ('model', 'model.module', 'model.detector')


def check_counts(model: Any, metainfo: Mapping[str, Any]) -> list[Finding]:
    """Compare the numbers of classes in a model's config with those of the data."""
    expected = {'num_classes': len(metainfo['classes'])}
    kinds = {name: 'classes' for name in COUNTS}
    if 'stuff_classes' in metainfo:
        things, stuff = len(metainfo['thing_classes']), len(metainfo['stuff_classes'])
        expected = dict(zip(COUNTS, (things, things, stuff), strict=True))
        kinds = dict(zip(COUNTS, ('things', 'things', 'stuff classes'), strict=True))
    findings = []
    wrong = [w for w in class_counts(model) if expected.get(w[1], w[2]) != w[2]]
    for name, number in sorted({(name, number) for _, name, number in wrong}):
        fields = [f for f, n, count in wrong if (n, count) == (name, number)]
        where = '' if fields == [f'model.{name}'] else f' in {", ".join(fields)}'
        findings.append(
            Finding(
                'error',
                f'the data has {expected[name]} {kinds[name]}, the model {number}',
                f'set {name}={expected[name]}{where}; background is not counted',
                'classes',
            )
        )
    return findings


def labels_of(categories: Sequence[Mapping], classes: Sequence[str]) -> list[str]:
    """The names of labels 0, 1, ... as `CocoDataset` counts them."""
    return [c['name'] for c in categories if c.get('name') in classes]


def check_names(
    categories: Sequence[Mapping], classes: Any, in_file_order: bool
) -> list[Finding]:
    """Compare a file's categories with `metainfo.classes`.

    Args:
        categories: Of the file.
        classes: `metainfo.classes`.
        in_file_order: Labels are counted as in `CocoDataset`.
    """
    if isinstance(classes, str):
        what = f'metainfo.classes={classes!r} is a string, not a list of names'
        mend = f'write a comma: classes=({classes!r},)'
        return [Finding('error', what, mend, 'classes')]
    found = [str(c.get('name')) for c in categories]
    labels = labels_of(categories, classes)
    missing = [name for name in classes if name not in found]
    left_out = [name for name in found if name not in classes]
    shifted = in_file_order and labels != list(classes)[: len(labels)]
    findings = []
    if missing:
        findings.append(missing_classes(classes, found, missing, shifted))
    if shifted and labels:
        findings.append(another_order(classes, labels))
    if left_out:
        what = f'categories left out, not named in metainfo.classes: {some(left_out)}'
        mend = 'fine, unless a name is spelt differently in the two'
        findings.append(Finding('info', what, mend, 'category', left_out))
    return findings


def missing_classes(
    classes: Sequence[str], found: list[str], missing: list[str], shifted: bool
) -> Finding:
    """Classes that the file does not have; bad where it moves the labels of others."""
    present = len(classes) - len(missing)
    what = (
        f'metainfo.classes names {len(classes)} classes, the file has {present} of '
        f'them; not {some(missing)}'
    )
    if present == 0:
        mend = (
            f'set metainfo=dict(classes=({some(found)})), the names in the file, and '
            f'num_classes={len(found)}'
        )
    else:
        mend = (
            "list them in the file's categories, in the order of metainfo.classes, or "
            'name only what the file has, and set num_classes accordingly'
        )
    severity: Severity = 'error' if shifted or present == 0 else 'warning'
    return Finding(severity, what, mend, 'classes', missing)


def another_order(classes: Sequence[str], labels: list[str]) -> Finding:
    """Labels whose name in `metainfo.classes` is that of another class."""
    wrong = [i for i, name in enumerate(labels) if name != classes[i]]
    i = wrong[0]
    return Finding(
        'warning',
        f'CLASS ORDER: {len(wrong)} of {len(labels)} labels carry a wrong name; label '
        f'{i} is {labels[i]!r} in the file and {classes[i]!r} in metainfo.classes',
        f'write metainfo.classes in the order of the file: ({some(labels)}); AP does '
        'not show it, every picture and every result does',
        'classes',
        [labels[i] for i in wrong],
    )


def some(names: Sequence[str]) -> str:
    """The first names, quoted."""
    rest = len(names) - SHOWN
    shown = ', '.join(repr(name) for name in names[:SHOWN])
    return f'{shown} and {rest} more' if rest > 0 else shown
