# V-99 with parameters, gradients and optimizer state sharded over the processes.
_base_ = [
    './centermask_v99_fpn_ms-3x_coco.py',
    '../_base_/fsdp.py',
]
