"""Table, CSV and plot of what :mod:`.comparison` measures."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .comparison import Row
from .markdown import markdown_table

FIELDS = (
    'name',
    'mode',
    'parameters',
    'flops',
    'memory_mb',
    'ms_lower',
    'ms_median',
    'ms_upper',
    'found',
    'box_ap',
    'mask_ap',
    'error',
)


def write_comparison(rows: Sequence[Row], out: Path) -> str:
    """Write ``compare.md``, ``.csv`` and ``.png`` and return the table."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / 'compare.csv').open('w', newline='') as file:
        writer = csv.DictWriter(file, FIELDS, extrasaction='ignore')
        writer.writeheader()
        for row in rows:
            ms = dict(zip(FIELDS[5:8], row.get('ms', ()), strict=False))
            writer.writerow(row | ms)
    table = comparison_table(rows)
    (out / 'compare.md').write_text(table + '\n')
    comparison_plot(rows).savefig(out / 'compare.png', dpi=150)
    return table


def comparison_table(rows: Sequence[Row]) -> str:
    """A line for each detector; below it, why some did not run."""
    header = (
        'detector',
        'input',
        'parameters (M)',
        'FLOPs (G)',
        'memory (MB)',
        'ms/picture, median (quartiles)',
        'box AP',
        'mask AP',
    )
    table = markdown_table(header, [comparison_cells(row) for row in rows])
    failed = [f'{row["name"]}: {row["error"]}' for row in rows if 'error' in row]
    return '\n'.join([table, '', *failed]) if failed else table


def comparison_cells(row: Row) -> list[str]:
    if 'error' in row:
        return [row['name'], 'did not run', *['-'] * 6]
    lower, median, upper = row['ms']
    memory = row['memory_mb']
    aps = [row['box_ap'], row['mask_ap']]
    return [
        row['name'],
        '{} x {}'.format(*row['shape']),
        f'{row["parameters"] / 1e6:.1f}',
        f'{row["flops"] / 1e9:.1f}',
        '-' if memory is None else f'{memory:.0f}',
        f'{median:.0f} ({lower:.0f}-{upper:.0f})',
        *('-' if ap is None else f'{ap:.3f}' for ap in aps),
    ]


def comparison_plot(rows: Sequence[Row]) -> Figure:
    """Mask AP over milliseconds; where no AP is known, milliseconds alone."""
    timed = [row for row in rows if 'error' not in row]
    scored = [row for row in timed if row['mask_ap'] is not None]
    figure = Figure(figsize=(8, 0.35 * len(timed) + 2.5), layout='constrained')
    axes = figure.subplots()
    if scored:
        draw_accuracy(axes, scored)
    else:
        draw_speed(axes, timed)
    axes.set_xlabel('ms per picture, median')
    axes.grid(alpha=0.3)
    return figure


def draw_accuracy(axes: Axes, rows: Sequence[Row]) -> None:
    for row in rows:
        point = (row['ms'][1], row['mask_ap'])
        axes.plot(*point, 'o')
        axes.annotate(
            row['name'], point, xytext=(5, 4), textcoords='offset points', fontsize=8
        )
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_ylabel('mask AP')


def draw_speed(axes: Axes, rows: Sequence[Row]) -> None:
    """Bars, the quickest on top, with the quartiles as whiskers."""
    rows = sorted(rows, key=lambda row: row['ms'][1], reverse=True)
    medians = [row['ms'][1] for row in rows]
    whiskers = [
        [median - row['ms'][0] for row, median in zip(rows, medians, strict=True)],
        [row['ms'][2] - median for row, median in zip(rows, medians, strict=True)],
    ]
    axes.barh([row['name'] for row in rows], medians, xerr=whiskers, color='tab:blue')
