# The official recipe: SGD 0.01 for 16 pictures, 1000 iterations of warm-up from
# a thousandth, no weight decay on norms; 3x is 270,000 iterations.
max_iters = 270000

train_cfg = dict(type='ResumableTrainLoop', max_iters=max_iters, val_interval=10000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(
        type='MultiStepLR',
        by_epoch=False,
        begin=0,
        end=max_iters,
        milestones=[210000, 250000],
        gamma=0.1,
    ),
]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0001),
    paramwise_cfg=dict(norm_decay_mult=0.0),
    # Not in the recipe, and out of its way: healthy gradient norms stay below.
    # It catches the rare batch that would otherwise end in NaN.
    clip_grad=dict(max_norm=35, norm_type=2),
)
# On by default: one GPU with two pictures then trains at 0.00125, where the
# untouched 0.01 is the commonest cause of NaN losses.
auto_scale_lr = dict(enable=True, base_batch_size=16)
