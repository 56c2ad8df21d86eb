# How FCOS's head starts where nothing pretrained is loaded: as stock, but for the bias
# of the distances, one stride instead of 0. FCOS cuts them at 0, below which there is
# no gradient, so a side that starts there everywhere is never learnt. A model takes
# this as `_base_` and writes
#     model = dict(bbox_head=dict(init_cfg={{_base_.fcos_scratch}}), ...)
fcos_scratch = dict(
    type='Normal',
    layer='Conv2d',
    std=0.01,
    override=[
        dict(type='Normal', name='conv_cls', std=0.01, bias_prob=0.01),
        dict(type='Normal', name='conv_reg', std=0.01, bias=1.0),
    ],
)
