"""Findings as text."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from .checking import FileReport
from .finding import RUN_WIDE, SEVERITIES, Finding

WIDTH = 88
SHOWN = 5  # offenders in a line
INDENT = ' ' * 16


def as_table(report: FileReport) -> str:
    """A table of counts with the mend for each, errors first."""
    fields = ', '.join(report.source.fields)
    lines = [f'{report.source.path}  ({fields})', f'  {report.contents}']
    if not report.findings:
        return '\n'.join([*lines, '  nothing to mend'])
    lines.append(f'{"severity":8} {"count":>6} finding')
    for finding in report.findings:
        lines += wrapped(finding.what, f'{finding.severity:8} {finding.count:6} ')
        if finding.subject not in RUN_WIDE:
            lines += wrapped(examples(finding), INDENT)
        lines += wrapped(f'-> {finding.mend}', INDENT)
    return '\n'.join(lines)


def wrapped(text: str, start: str) -> list[str]:
    """Lines of `text` behind `start`, as long as `INDENT`."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=start,
        subsequent_indent=INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )


def examples(finding: Finding) -> str:
    """The first offenders, the worst in front: `annotations 4, 7, 9 ...`"""
    shown = [str(name) for name in finding.offenders[:SHOWN]]
    kind = finding.subject if len(shown) == 1 else plural(finding.subject)
    more = ' ...' if finding.count > SHOWN else ''
    return f'{kind} {", ".join(shown)}{more}'


def plural(subject: str) -> str:
    return 'categories' if subject == 'category' else f'{subject}s'


def in_one_line(finding: Finding) -> str:
    """For a log or an error message."""
    if finding.subject in RUN_WIDE:
        return f'{finding.what}: {finding.mend}'
    return f'{finding.count} x {finding.what} ({examples(finding)}): {finding.mend}'


def totals(reports: Sequence[FileReport]) -> str:
    """`2 errors, 1 warning in 2 files`."""
    found = [finding.severity for report in reports for finding in report.findings]
    counts = {severity: found.count(severity) for severity in SEVERITIES[:2]}
    text = ', '.join(
        f'{count} {severity}{"" if count == 1 else "s"}'
        for severity, count in counts.items()
    )
    return f'{text} in {len(reports)} file{"" if len(reports) == 1 else "s"}'
