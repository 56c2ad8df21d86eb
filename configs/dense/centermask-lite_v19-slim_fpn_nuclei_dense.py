# The nuclei config with the dense option: 2000 nuclei instead of 400, RLE masks.
_base_ = ['../nuclei/centermask-lite_v19-slim_fpn_nuclei.py', '../_base_/dense.py']

model = dict(test_cfg={{_base_.dense_test_cfg}})
val_evaluator = {{_base_.dense_evaluator}}
test_evaluator = {{_base_.dense_evaluator}}
