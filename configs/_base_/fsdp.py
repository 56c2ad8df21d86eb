# Parameters, gradients and optimizer state sharded over the processes (FSDP). A config
# takes this file as one more `_base_`; it is run with `--launcher pytorch`. Of the 97
# million parameters of CenterMask V-99 a process holds its share; what is gathered for
# a moment are pieces of about a million.
runner_type = 'FlexibleRunner'
strategy = dict(
    type='ShardedStrategy',
    model_wrapper=dict(
        type='MMFullyShardedDataParallel',
        use_orig_params=True,  # frozen and learning parameters, in one piece
        auto_wrap_policy=dict(
            type='torch.distributed.fsdp.wrap.size_based_auto_wrap_policy',
            min_num_params=1_000_000,
        ),
    ),
    state_dict_cfg='full',  # the same file as a run without it
)
