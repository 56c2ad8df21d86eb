"""Check the data that a config reads, before the first step.

Looks at the annotation files of every split, at the classes and at the pictures, and
prints a table of what is wrong, with the mend for each. Leaves with 1 if there are
errors. See docs/check_dataset.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='a config file, or the name of one of ours')
    parser.add_argument(
        '--splits',
        nargs='+',
        choices=['train', 'val', 'test'],
        default=['train', 'val', 'test'],
        help='what to check (default: all)',
    )
    parser.add_argument(
        '--decode',
        action='store_true',
        help='decode every picture in full, not only headers and last bytes',
    )
    parser.add_argument(
        '--draw', metavar='DIR', type=Path, help='draw the worst offenders into DIR'
    )
    parser.add_argument(
        '--worst',
        type=int,
        default=3,
        metavar='N',
        help='draw N of each kind (default: 3)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        metavar='KEY=VALUE',
        help='override config fields, such as data_root=data/fruit/',
    )
    # What else a config is loaded with.
    parser.set_defaults(launcher='none', work_dir=None)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    # After the arguments, so that -h and a wrong option answer at once.
    try:
        from mmdet_centermask.checks import (
            as_table,
            check_config,
            draw_findings,
            totals,
        )
        from mmdet_centermask.experiment import ExperimentError, load_experiment
    except ImportError as error:
        if error.name not in ('mmcv', 'mmdet_centermask'):
            raise
        sys.exit(str(error))
    try:
        cfg = load_experiment(args)
    except ExperimentError as error:
        sys.exit(str(error))
    depth = 'decode' if args.decode else 'headers'
    reports, left_out = check_config(cfg, args.splits, depth, track=progress)
    for report in reports:
        print(as_table(report), end='\n\n')
    for sentence in left_out:
        print(sentence)
    if args.draw is not None:
        for report in reports:
            for path in draw_findings(report, args.draw, args.worst):
                print(f'drawn: {path}')
    print(totals(reports))
    bad = any(f.severity == 'error' for report in reports for f in report.findings)
    return 1 if bad else 0


def progress(items, doing):
    """Yield `items`, with a progress bar where stderr is a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    hidden = not console.is_terminal
    yield from track(items, doing, console=console, transient=True, disable=hidden)


if __name__ == '__main__':
    sys.exit(main())
