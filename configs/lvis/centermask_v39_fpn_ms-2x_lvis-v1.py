_base_ = [
    '../_base_/models/centermask.py',
    '../_base_/datasets/lvis_v1_instance.py',
    '../_base_/schedules/sgd_2x.py',
    '../_base_/default_runtime.py',
]

model = dict(num_classes=1203, test_cfg={{_base_.lvis_test_cfg}})
