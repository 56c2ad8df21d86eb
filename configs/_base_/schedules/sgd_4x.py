# 4x: 360,000 iterations (CenterMask-Lite's official recipe).
_base_ = './sgd_3x.py'

max_iters = 360000
train_cfg = dict(max_iters=max_iters)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(
        type='MultiStepLR',
        by_epoch=False,
        begin=0,
        end=max_iters,
        milestones=[300000, 340000],
        gamma=0.1,
    ),
]
