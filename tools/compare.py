"""Compare instance segmenters of this package and of MMDetection in one run.

Names are those of config files, here or installed with MMDetection. Without a
checkpoint, weights are random: speed and memory are those of a trained detector that
finds --detections objects in each picture, and there is no AP.
"""

import argparse
import sys
from pathlib import Path


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'detectors',
        nargs='+',
        metavar='CONFIG[:CHECKPOINT][@MODE]',
        help='MODE as in tools/benchmark.py',
    )
    parser.add_argument(
        '--data',
        type=Path,
        required=True,
        metavar='FOLDER|FILE.json',
        help='pictures, or COCO annotations, which AP needs',
    )
    parser.add_argument(
        '--images', type=Path, metavar='FOLDER', help="of the JSON's pictures"
    )
    parser.add_argument(
        '--pictures', type=int, default=5, help='that are timed (default 5)'
    )
    parser.add_argument(
        '--rounds', type=int, default=3, help='over the pictures (default 3)'
    )
    parser.add_argument('--threads', type=int, help='of the CPU (default: as torch)')
    parser.add_argument(
        '--detections', type=int, default=50, help='of each picture (default 50)'
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/compare'),
        help='folder for compare.md, .csv and .png (default work_dirs/compare)',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    # Only now, so that `-h` is quick and needs no torch.
    from mmdet_centermask.benchmark.comparison import compare, find_data, parse_entrant
    from mmdet_centermask.benchmark.comparison_report import write_comparison
    from mmdet_centermask.benchmark.hardware import hardware
    from mmdet_centermask.benchmark.measure_report import machine_line
    from mmdet_centermask.benchmark.workload import Workload
    from mmdet_centermask.experiment import ExperimentError

    workload = Workload('', detections=args.detections, threads=args.threads)
    try:
        entrants = [parse_entrant(text) for text in args.detectors]
        data = find_data(args.data, args.images, args.pictures)
        rows = compare(entrants, data, workload, args.rounds)
    except ExperimentError as error:
        sys.exit(str(error))
    print(machine_line(hardware()))
    print()
    print(write_comparison(rows, args.out))


if __name__ == '__main__':
    main()
