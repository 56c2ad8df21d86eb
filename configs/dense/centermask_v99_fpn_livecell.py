_base_ = [
    '../_base_/models/centermask.py',
    '../_base_/datasets/livecell_instance.py',
    '../_base_/schedules/sgd_livecell.py',
    '../_base_/dense.py',
    '../_base_/default_runtime.py',
]

model = dict(
    num_classes=1,
    data_preprocessor=dict(mean=[128.0, 128.0, 128.0], std=[11.578, 11.578, 11.578]),
    backbone=dict(
        arch='V-99', init_cfg=dict(checkpoint='checkpoints/vovnet99_ese.pth')
    ),
    train_cfg={{_base_.dense_train_cfg}},
    test_cfg={{_base_.dense_test_cfg}},
)
