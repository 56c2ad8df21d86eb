"""Train several configs from scratch for the same CPU minutes, side by side."""

import argparse
import sys
from pathlib import Path


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('configs', nargs='+', help='config files, or names of ours')
    parser.add_argument(
        '--minutes', type=float, default=30, help='CPU minutes of each (default 30)'
    )
    parser.add_argument(
        '--points', type=int, default=5, help='validations on the way (default 5)'
    )
    parser.add_argument(
        '--curve-every',
        type=int,
        default=3,
        metavar='N',
        help='validate on every Nth picture; the test at the end sees all (default 3)',
    )
    parser.add_argument(
        '--amp',
        action='store_true',
        help='train in mixed precision (bfloat16 on a CPU), as tools/train.py --amp',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/learning'),
        help='folder for runs, table, CSV, JSON and plot; what is finished in it is '
        'not trained again',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    # Only now, so that `-h` is quick and needs no torch.
    from mmdet_centermask.benchmark.learning import Race, run_race
    from mmdet_centermask.benchmark.learning_report import write_report
    from mmdet_centermask.config_path import find_config
    from mmdet_centermask.experiment import ExperimentError

    race = Race(args.minutes, args.points, args.curve_every, args.amp)
    try:
        configs = [find_config(name) for name in args.configs]
        results = run_race(configs, race, args.out)
    except (ExperimentError, FileNotFoundError) as error:
        sys.exit(str(error))
    print(write_report(results, args.out))


if __name__ == '__main__':
    main()
