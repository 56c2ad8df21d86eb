"""What a check hands on: how bad, how many, which, and what to do."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal

Severity = Literal['error', 'warning', 'info']
# error: training or evaluation stops, or gives wrong numbers.
# warning: objects get lost on the way, or look doubtful.
# info: nothing wrong, but good to know.
SEVERITIES: tuple[Severity, ...] = ('error', 'warning', 'info')
Subject = Literal['annotation', 'image', 'category', 'classes', 'file']
# Subjects that say nothing about single items; an error there spoils a whole run.
RUN_WIDE: tuple[Subject, ...] = ('classes', 'file')


@dataclass(frozen=True)
class Finding:
    """A defect that was found.

    Attributes:
        severity: See `SEVERITIES`.
        what: The defect, without a full stop.
        mend: What to do about it.
        subject: What `offenders` and `rows` name.
        offenders: Ids or names, the worst first.
        rows: Their rows in the file's list, where the subject is an annotation or
            an image.
    """

    severity: Severity
    what: str
    mend: str
    subject: Subject
    offenders: Sequence[Hashable] = field(default=())
    rows: Sequence[int] = field(default=())

    @property
    def count(self) -> int:
        return max(1, len(self.offenders))
