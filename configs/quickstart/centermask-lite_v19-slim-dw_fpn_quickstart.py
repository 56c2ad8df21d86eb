# A few minutes on two CPU cores, from scratch: `make demo`.
_base_ = [
    '../_base_/models/centermask_narrow_scratch.py',
    '../_base_/datasets/quickstart_instance.py',
    '../_base_/schedules/adamw_short.py',
    '../_base_/default_runtime.py',
]

model = dict(num_classes=5)
default_hooks = dict(visualization=dict(score_thr=0.5))
