"""Tables of what :mod:`.measure` measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .markdown import markdown_table
from .measure import Row
from .stages import STAGES


def speed_report(found: Mapping[str, Any], stages: bool) -> str:
    """What was measured, on what, as Markdown.

    Args:
        found: Of :func:`~.measure.benchmark`.
        stages: Also where the time goes.
    """
    parts = [
        machine_line(found['machine']),
        peak_line(found['conv_peaks']),
        speed_table(found['rows']),
    ]
    if stages:
        parts.append(stage_table(found['rows']))
    return '\n\n'.join(parts)


def machine_line(machine: Mapping[str, str | int]) -> str:
    return ', '.join(f'{key} {value}' for key, value in machine.items())


def peak_line(peaks: Mapping[str, float]) -> str:
    speeds = ', '.join(f'{dtype} {peak / 1e9:.0f}' for dtype, peak in peaks.items())
    return f'best 3x3 conv, channels-last, 10^9 multiply-adds a second: {speeds}'


def speed_table(rows: Sequence[Row]) -> str:
    """A row for each config and mode."""
    header = (
        'config',
        'mode',
        'input',
        'batch',
        'found',
        'parameters (M)',
        'FLOPs (G)',
        'memory (MB)',
        'ms, median (quartiles)',
        'fps',
        'x as fast',
        'outside network',
        'of conv peak',
    )
    return markdown_table(header, [speed_cells(row) for row in rows])


def speed_cells(row: Row) -> list[str]:
    lower, median, upper = row['ms']
    memory = row['memory_mb']
    return [
        row['config'],
        row['mode'],
        '{} x {}'.format(*row['shape']),
        str(row['batch']),
        str(row['found']),
        f'{row["parameters"] / 1e6:.1f}',
        f'{row["flops"] / 1e9:.1f}',
        '-' if memory is None else f'{memory:.0f}',
        f'{median:.0f} ({lower:.0f}-{upper:.0f})',
        f'{row["fps"]:.1f}',
        f'{row["ratio"]:.2f}',
        f'{row["outside"]:.0%}',
        f'{row["of_peak"]:.2f}',
    ]


def stage_table(rows: Sequence[Row]) -> str:
    """Milliseconds of each stage of a batch; stages that nobody has are left out."""
    names = [name for name in STAGES if any(name in row['stages_ms'] for row in rows)]
    cells = [
        [
            row['config'],
            row['mode'],
            *(
                f'{row["stages_ms"][n]:.1f}' if n in row['stages_ms'] else '-'
                for n in names
            ),
        ]
        for row in rows
    ]
    return markdown_table(['config', 'mode', *names], cells)
