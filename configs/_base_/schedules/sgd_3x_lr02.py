# Twice the learning rate of sgd_3x.py: what two-stage detectors take for 16 pictures
# (arXiv 1703.06870, section 3.1).
_base_ = './sgd_3x.py'

optim_wrapper = dict(optimizer=dict(lr=0.02))
