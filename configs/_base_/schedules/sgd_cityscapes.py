# 24,000 iterations of eight pictures, a tenth after 18,000 (arXiv 1703.06870, appendix
# A); the learning rate is that of sgd_3x.py for the real number of pictures.
_base_ = './sgd_3x.py'

max_iters = 24000
train_cfg = dict(max_iters=max_iters, val_interval=4000)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(
        type='MultiStepLR',
        by_epoch=False,
        begin=0,
        end=max_iters,
        milestones=[18000],
        gamma=0.1,
    ),
]
