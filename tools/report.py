"""Turn a test run into one self-contained HTML page.

AP by class and size, precision-recall curves, confusion, the worst misses and false
alarms with pictures, speed. Reads the results that the test wrote as JSON:

    python tools/test.py CONFIG CHECKPOINT --work-dir RUN \\
        --cfg-options test_evaluator.outfile_prefix=RUN/results
    python tools/report.py CONFIG RUN/results RUN/report.html
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ap_table import newest_metrics  # its neighbour, as a script finds it


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='a config file, or the name of one of ours')
    parser.add_argument('results', help='the outfile_prefix of the test')
    parser.add_argument('out', type=Path, help='page to write, .html')
    parser.add_argument(
        '--metrics',
        type=Path,
        metavar='FILE.json',
        help='metrics of the test, for its speed (default: the newest beside results)',
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        metavar='X',
        help='look for mistakes from this score on (default: where F1 is highest)',
    )
    return parser.parse_args(argv)


def metrics_beside(results: str) -> Path | None:
    try:
        return newest_metrics(Path(results).parent)
    except FileNotFoundError:
        return None  # the page says so


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    # After the arguments, so that -h and a wrong option answer at once.
    from mmdet_centermask.config_path import find_config
    from mmdet_centermask.experiment import ExperimentError
    from mmdet_centermask.report import read_run, render_page

    try:
        config = find_config(args.config)
        metrics = args.metrics or metrics_beside(args.results)
        run = read_run(config, args.results, metrics)
    except (ExperimentError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(render_page(run, args.score_thr), encoding='utf-8')
    print(f'wrote {args.out}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
