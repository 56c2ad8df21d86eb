"""What a race of configs leaves behind: CSV, JSON, a table and a plot."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from .markdown import markdown_table

Result = dict[str, Any]

COLUMNS = {
    'config': 'config',
    'iterations': 'iterations',
    'CPU minutes': 'cpu_minutes',
    'box AP': 'box_ap',
    'mask AP': 'mask_ap',
    'ms/picture': 'latency_ms',
}
FORMATS = dict(
    cpu_minutes='{:.1f}', box_ap='{:.3f}', mask_ap='{:.3f}', latency_ms='{:.0f}'
)
CURVE = ('iteration', 'cpu_minutes', 'box_ap', 'mask_ap')


def write_report(results: Sequence[Result], out: Path) -> str:
    """Write ``learning.csv``, ``.json``, ``.md`` and ``.png`` and return the table.

    The CSV and the plot hold the validations on the way, the table the test at the
    end.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / 'learning.json').write_text(json.dumps(results, indent=1))
    with (out / 'learning.csv').open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['config', *CURVE])
        for result in results:
            for point in result.get('curve', ()):
                writer.writerow([result['config'], *(point[name] for name in CURVE)])
    table = learning_table(results)
    (out / 'learning.md').write_text(table + '\n')
    learning_plot(results).savefig(out / 'learning.png', dpi=150)
    return table


def learning_table(results: Sequence[Result]) -> str:
    """A row for each config; one that failed says how instead of numbers."""
    rows = []
    for result in results:
        if 'error' in result:
            blank = [''] * (len(COLUMNS) - 2)
            rows.append([result['config'], result['error'], *blank])
        else:
            rows.append(
                [FORMATS.get(key, '{}').format(result[key]) for key in COLUMNS.values()]
            )
    return markdown_table(list(COLUMNS), rows)


def learning_plot(results: Sequence[Result]) -> Figure:
    """Mask AP over CPU minutes, a line for each config."""
    figure = Figure(figsize=(7, 4.5), layout='constrained')
    axes = figure.subplots()
    for result in results:
        curve = [dict.fromkeys(CURVE, 0), *result.get('curve', ())]
        if len(curve) > 1:
            axes.plot(
                [point['cpu_minutes'] for point in curve],
                [point['mask_ap'] for point in curve],
                marker='o',
                label=result['config'],
            )
    axes.set_xlabel('CPU minutes of training')
    axes.set_ylabel('mask AP')
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
