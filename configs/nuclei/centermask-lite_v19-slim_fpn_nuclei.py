# Cell nuclei of the 2018 Data Science Bowl (BBBC038), one class, from scratch.
_base_ = [
    '../_base_/models/centermask_lite.py',
    '../_base_/datasets/nuclei_instance.py',
    '../_base_/schedules/adamw_short.py',
    '../_base_/default_runtime.py',
]

model = dict(
    num_classes=1,
    backbone=dict(
        arch='V-19-slim',
        norm_cfg=dict(requires_grad=True),
        norm_eval=False,
        init_cfg=None,
    ),
    neck=dict(in_channels=[256, 384, 512]),
    # Pictures hold up to 375 nuclei, where COCO's keep 50.
    train_cfg=dict(rcnn=dict(sampler=dict(num=64))),
    test_cfg=dict(bbox=dict(max_per_img=400)),
)
max_iters = 1000
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(end=max_iters, T_max=max_iters - 100)
