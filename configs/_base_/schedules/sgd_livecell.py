# 100,000 iterations, lower after 80,000 and 90,000: LIVECell's own CenterMask models.
_base_ = './sgd_3x.py'

max_iters = 100000
train_cfg = dict(max_iters=max_iters)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(
        type='MultiStepLR',
        by_epoch=False,
        begin=0,
        end=max_iters,
        milestones=[80000, 90000],
        gamma=0.1,
    ),
]
