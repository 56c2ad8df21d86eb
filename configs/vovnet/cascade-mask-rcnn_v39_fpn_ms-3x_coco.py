_base_ = [
    '../_base_/models/vovnet_cascade_mask_rcnn.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/sgd_3x_lr02.py',
    '../_base_/default_runtime.py',
]
