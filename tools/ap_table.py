"""Print the box and mask AP of the newest test run in a work directory."""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

COLUMNS = {
    'AP': 'mAP',
    'AP50': 'mAP_50',
    'AP75': 'mAP_75',
    'AP small': 'mAP_s',
    'AP medium': 'mAP_m',
    'AP large': 'mAP_l',
}
ROWS = {'box': 'bbox', 'mask': 'segm'}


def newest_metrics(work_dir: Path) -> Path:
    """Return the metrics file that `tools/test.py` wrote last.

    Raises:
        FileNotFoundError: If no test run has left one.
    """
    files = [
        path for path in work_dir.glob('*/*.json') if path.stem == path.parent.name
    ]
    if not files:
        raise FileNotFoundError(f'work_dir={str(work_dir)!r} holds no test run')
    return max(files)  # named by the time of the run


def ap_table(metrics: Mapping[str, float]) -> str:
    """Lay out CocoMetric's numbers: a row for boxes, a row for masks.

    A size of which the data has no objects is `-` (COCO's own mark for it is -1).
    """
    lines = [' ' * 6 + ''.join(f'{name:>11}' for name in COLUMNS)]
    for row, kind in ROWS.items():
        values = [metrics.get(f'coco/{kind}_{key}', -1.0) for key in COLUMNS.values()]
        cells = ['-' if value < 0 else f'{value:.3f}' for value in values]
        lines.append(f'{row:6}' + ''.join(f'{cell:>11}' for cell in cells))
    return '\n'.join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('work_dir', type=Path, help='the --work-dir of the test run')
    args = parser.parse_args()
    try:
        path = newest_metrics(args.work_dir)
    except FileNotFoundError as error:
        sys.exit(str(error))
    print(ap_table(json.loads(path.read_text())))
    print(f'all metrics: {path}')


if __name__ == '__main__':
    main()
