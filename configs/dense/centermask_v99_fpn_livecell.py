_base_ = [
    '../_base_/models/centermask_livecell.py',
    '../_base_/datasets/livecell_instance.py',
    '../_base_/schedules/sgd_livecell.py',
    '../_base_/default_runtime.py',
]
