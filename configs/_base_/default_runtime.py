default_scope = 'mmdet'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    non_finite=dict(type='NonFiniteGuardHook', action='skip'),  # or 'stop'
    average_losses=dict(type='AverageLossesHook'),
    checkpoint=dict(
        type='AtomicCheckpointHook', by_epoch=False, interval=10000, max_keep_ckpts=3
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='DetVisualizationHook'),
    # docs/check_dataset.md; enabled=False switches one off.
    dataset_check=dict(type='DatasetCheckHook'),
    startup_check=dict(type='StartupCheckHook'),
)
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(
    type='DetLocalVisualizer', vis_backends=vis_backends, name='visualizer'
)
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=False)
log_level = 'INFO'
load_from = None
resume = False
