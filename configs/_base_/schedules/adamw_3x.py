# The length of sgd_3x.py with RTMDet's AdamW (arXiv 2212.07784, table 7: 0.004 for 256
# pictures, weight decay 0.05 but not on norms and biases), scaled to 16.
_base_ = './sgd_3x.py'

optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.00025, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, bypass_duplicate=True),
    clip_grad=dict(max_norm=35, norm_type=2),
)
