"""Time a network in PyTorch and in the runtimes it was exported for, in one run.

Prints a Markdown table: eager PyTorch, the fast mode, onnxruntime and OpenVINO, in the
precisions that this machine has and the folder offers. Needs an otherwise idle machine.
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
    parser.add_argument('checkpoint', help='a checkpoint file or URL')
    parser.add_argument('folder', type=Path, help='written by tools/export_onnx.py')
    parser.add_argument(
        '--pictures', type=int, default=20, metavar='N', help='of the test set (20)'
    )
    parser.add_argument('--rounds', type=int, default=3, metavar='N', help='(3)')
    parser.add_argument('--threads', type=int, default=2, metavar='N', help='(2)')
    parser.add_argument(
        '--ap', action='store_true', help='also the AP of each, on the test set'
    )
    parser.add_argument(
        '--ap-pictures', type=int, metavar='N', help='AP on the first N (all)'
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    # Only now, so that `-h` is quick and needs no torch.
    from mmdet_centermask.deploy import benchmark
    from mmdet_centermask.deploy.accuracy import read_dataset
    from mmdet_centermask.deploy.predict import load_picture
    from mmdet_centermask.deploy.trained import load_trained
    from mmdet_centermask.experiment import ExperimentError

    try:
        trained = load_trained(args.config, args.checkpoint)
        dataset = read_dataset(trained.config, 'test')
        engines = benchmark.engines_of(trained, args.folder, args.threads)
        count = min(args.pictures, len(dataset))
        pictures = [
            load_picture(dataset.get_data_info(i)['img_path']) for i in range(count)
        ]
        precisions = (
            benchmark.precisions_of(engines, trained, args.ap_pictures)
            if args.ap
            else None
        )
    except (ExperimentError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    results = benchmark.measure(engines, pictures, args.rounds, precisions)
    print(benchmark.as_table(results))
    return 0


if __name__ == '__main__':
    sys.exit(main())
