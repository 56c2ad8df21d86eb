"""Measure detectors: parameters, FLOPs, memory, time of each stage, fps."""

import argparse
import json
import sys
from pathlib import Path


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'configs', nargs='+', help="config files, or names of ours or MMDetection's"
    )
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('HEIGHT', 'WIDTH'),
        help="size of the picture (default: 4:3 at the config's test scale)",
    )
    parser.add_argument(
        '--batch', type=int, default=1, help='pictures at a time (default 1)'
    )
    parser.add_argument(
        '--mode',
        nargs='+',
        choices=['default', 'fast', 'fast-float32', 'fast-compiled', 'stock'],
        default=['default'],
        help='eager float32; optimized, also in float32 or compiled; CenterMask '
        'between stock parts. Several take turns, and the first is what the others '
        'are compared with',
    )
    parser.add_argument(
        '--stages', action='store_true', help='also print the time of each stage'
    )
    parser.add_argument('--threads', type=int, help='of the CPU (default: as torch)')
    parser.add_argument(
        '--detections', type=int, default=50, help='of each picture (default 50)'
    )
    parser.add_argument(
        '--rounds', type=int, default=10, help='calls that count (default 10)'
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all numbers')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    # Only now, so that `-h` is quick and needs no torch.
    from mmdet_centermask.benchmark.measure import benchmark
    from mmdet_centermask.benchmark.measure_report import speed_report
    from mmdet_centermask.benchmark.workload import Workload
    from mmdet_centermask.experiment import ExperimentError

    workload = Workload(
        config='',
        shape=args.shape and tuple(args.shape),
        batch=args.batch,
        detections=args.detections,
        threads=args.threads,
    )
    try:
        found = benchmark(args.configs, workload, args.mode, args.rounds)
    except (ExperimentError, FileNotFoundError) as error:
        sys.exit(str(error))
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(found, indent=1))
    print(speed_report(found, args.stages))


if __name__ == '__main__':
    main()
