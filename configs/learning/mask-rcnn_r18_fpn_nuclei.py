_base_ = [
    '../_base_/models/mask_rcnn_r18_scratch.py',
    '../_base_/datasets/nuclei_instance.py',
    '../_base_/schedules/adamw_1000.py',
    '../_base_/default_runtime.py',
]

model = dict(
    # Anchors of 16 to 256 pixels: half of the training crops' nuclei are below 17.
    rpn_head=dict(anchor_generator=dict(scales=[4])),
    roi_head=dict(bbox_head=dict(num_classes=1), mask_head=dict(num_classes=1)),
    test_cfg=dict(rcnn=dict(max_per_img=400)),
)
