# CenterMask V-99 for LIVECell (Nature Methods 2021, s41592-021-01249-6): grey pixels,
# one class, up to 2000 cells in a picture.
_base_ = ['./centermask.py', '../dense.py']

model = dict(
    num_classes=1,
    data_preprocessor=dict(mean=[128.0, 128.0, 128.0], std=[11.578, 11.578, 11.578]),
    backbone=dict(
        arch='V-99', init_cfg=dict(checkpoint='checkpoints/vovnet99_ese.pth')
    ),
    train_cfg={{_base_.dense_train_cfg}},
    test_cfg={{_base_.dense_test_cfg}},
)
