# Parameters, gradients and optimizer state sharded over the processes, by MMEngine's
# FSDP strategy. A config takes this file as one more `_base_`; it is run with
# `--launcher pytorch`. Of VoVNet's 70 million parameters (V-99) a process holds its
# share; what is computed in one piece are the parts of at least a million.
runner_type = 'FlexibleRunner'
strategy = dict(
    type='FSDPStrategy',
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
