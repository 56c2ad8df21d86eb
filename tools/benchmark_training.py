"""Time a training step in mixed precision against float32, on the same batches."""

import argparse
import json
import sys


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='a config file, or the name of one of ours')
    parser.add_argument('--iters', type=int, default=200, help='steps of each')
    parser.add_argument('--seed', type=int, default=0, help='of weights and pictures')
    parser.add_argument('--threads', type=int, help='of torch, on a CPU')
    parser.add_argument(
        '--png', metavar='FILE', help='draw the losses of both over the iterations'
    )
    parser.add_argument('--json', metavar='FILE', help='save every loss and time')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        metavar='KEY=VALUE',
        help='override config fields, such as train_dataloader.batch_size=4',
    )
    parser.set_defaults(launcher='none', work_dir=None)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    # Only now, so that `-h` is quick and needs no torch.
    try:
        import torch

        from mmdet_centermask.benchmark.training import (
            compare_training,
            describe,
            plot,
        )
        from mmdet_centermask.experiment import (
            ExperimentError,
            check_data_files,
            enable_amp,
            load_experiment,
        )
    except ImportError as error:
        if error.name not in ('mmcv', 'mmdet_centermask'):
            raise
        sys.exit(str(error))
    try:
        plain, mixed = load_experiment(args), load_experiment(args)
        check_data_files(plain, ('train',))
        enable_amp(mixed)
    except ExperimentError as error:
        sys.exit(str(error))
    half = 'float16' if torch.cuda.is_available() else 'bfloat16'
    sides = {'float32': plain, f'{half}, channels-last': mixed}
    curves = compare_training(sides, args.iters, args.seed, args.threads)
    print(
        f'{args.config}, {args.iters} iterations, torch {torch.__version__}, ', end=''
    )
    print(f'{args.threads or torch.get_num_threads()} threads')
    print(describe(curves))
    if args.png:
        plot(curves, args.png)
    if args.json:
        with open(args.json, 'w', encoding='utf-8') as file:
            json.dump({name: curve._asdict() for name, curve in curves.items()}, file)


if __name__ == '__main__':
    main()
