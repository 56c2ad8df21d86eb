_base_ = [
    '../_base_/models/condinst_r18_scratch.py',
    '../_base_/datasets/nuclei_instance.py',
    '../_base_/schedules/adamw_1000.py',
    '../_base_/default_runtime.py',
]

model = dict(bbox_head=dict(num_classes=1), test_cfg=dict(max_per_img=400))
