# Mixed precision: float16 on a GPU, bfloat16 on a CPU, convolutions channels-last. What
# `tools/train.py --amp` switches on; a config takes this file as a `_base_` and writes
#     optim_wrapper = {{_base_.amp_optim_wrapper}}
#     default_hooks = {{_base_.amp_hooks}}
amp_optim_wrapper = dict(type='MixedPrecisionOptimWrapper')
amp_hooks = dict(channels_last=dict(type='ChannelsLastHook'))
