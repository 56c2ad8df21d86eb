# `make demo` and `make test` are all a person has to know; `make help` lists more.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
CONFIG ?= centermask-lite_v19-slim-dw_fpn_quickstart.py

BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
DATA := data/quickstart
RUN := work_dirs/quickstart

# The stack; `make test-forks` says something else in all three.
PINS := requirements/tested.txt
MMCV := mmcv
STACK := '.[dev]'

# Directories too: their time changes when a file in them is added or removed.
SOURCES := setup.py pyproject.toml model-index.yml \
	$(shell find mmdet_centermask configs tools -name __pycache__ -prune -o -print)

# PIP_FIND_LINKS in the environment replaces what pip's own configuration says,
# and a folder of wheels named there often holds only some of them: use both.
FIND_LINKS = $(strip $(PIP_FIND_LINKS) \
	$(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null))
PIP = PIP_FIND_LINKS="$(FIND_LINKS)" PIP_DISABLE_PIP_VERSION_CHECK=1 \
	$(BIN)/python -m pip
INSTALL = $(PIP) install --quiet --constraint $(PINS)

# mim says this on every call, and there is nothing a user could do about it.
MIM = PYTHONWARNINGS='ignore:pkg_resources is deprecated:UserWarning' $(BIN)/mim

.DELETE_ON_ERROR:
.PHONY: help setup demo test test-forks lint clean

help:
	@echo 'make demo    set up .venv, make data, train CenterMask-Lite, test it, draw'
	@echo 'make test    set up .venv and run all tests (PYTEST_ARGS="-m \"not slow\"")'
	@echo 'make test-forks  the tests of the libraries, on the maintained forks of them'
	@echo 'make lint    ruff, mypy and hadolint'
	@echo 'make setup   only set up .venv (PYTHON=python3.11 picks the interpreter)'
	@echo 'make clean   remove what was built; keeps .venv, data/ and work_dirs/'

setup: $(STAMPS)/package

demo: $(STAMPS)/package
	@echo '== demo: data in $(DATA)'
	$(BIN)/python tools/make_quickstart_data.py $(DATA)
	@echo '== demo: training (log and checkpoints in $(RUN))'
	$(MIM) train mmdet_centermask $(CONFIG) --work-dir $(RUN)
	@echo '== demo: testing the last checkpoint'
	rm -rf $(RUN)/pictures
	$(MIM) test mmdet_centermask $(CONFIG) --checkpoint "$$(cat $(RUN)/last_checkpoint)" \
		--work-dir $(RUN)/test --show-dir '$(CURDIR)/$(RUN)/pictures'
	@echo '== demo: done'
	@$(BIN)/python tools/ap_table.py $(RUN)/test
	@echo 'pictures, truth beside prediction: $(RUN)/pictures'

# Tests of one file share what they set up, and so a process.
test: $(STAMPS)/package
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 \
		$(BIN)/python -m pytest -ra -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

# onedl-mmcv, onedl-mmengine and onedl-mmdetection have the import names of what
# they were forked from, so they live in an environment of their own.
FORKS := $(MAKE) --no-print-directory VENV=.venv-forks PINS=requirements/forks.txt \
	MMCV=onedl-mmcv STACK='onedl-mmengine onedl-mmdetection hypothesis model-index \
	pytest pytest-xdist safetensors scikit-image'
# What meets the libraries: import, configs, parity, training steps, the commands.
FORK_TESTS ?= $(addprefix tests/test_,environment.py doctor.py config_types.py \
	configs.py parity.py centermask.py centermask_roi_head.py pretrained.py \
	safe_checkpoints.py malicious_checkpoints.py tools_end_to_end.py)

test-forks:
	@if $(FORKS) fork-wheel; then \
		$(FORKS) test PYTEST_ARGS='$(FORK_TESTS)'; \
	else \
		echo '== test-forks: skipped, because there is no ready-made onedl-mmcv for'; \
		echo '== test-forks: this Python, and building it takes ten minutes'; \
	fi

lint: $(STAMPS)/package
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint docker/Dockerfile docker/Dockerfile.cpu

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find mmdet_centermask configs tools tests -name __pycache__ -prune -exec rm -rf {} +

# Set-up in steps, each done again only when what it depends on changes.
$(STAMPS)/venv:
	@echo '== setup: $(VENV), with $(shell $(PYTHON) --version)'
	@$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

# torch first: mmcv has to find it, and would be built without operators.
$(STAMPS)/torch: $(PINS) | $(STAMPS)/venv
	@echo '== setup: torch (200 MB to 3 GB, as pip chooses) and build tools'
	@$(INSTALL) torch
	@$(INSTALL) setuptools wheel ninja psutil
	@touch $@

$(STAMPS)/mmcv: $(PINS) | $(STAMPS)/torch
	@echo '== setup: mmcv'
	@$(INSTALL) --only-binary $(MMCV) $(MMCV) 2>/dev/null \
		|| $(MAKE) --no-print-directory build-mmcv
	@$(BIN)/python -c 'import cv2' 2>/dev/null || $(MAKE) --no-print-directory headless-opencv
	@$(BIN)/python -c 'from mmcv.ops import nms' 2>/dev/null \
		|| $(MAKE) --no-print-directory rebuild-mmcv
	@$(BIN)/python -c 'from mmcv.ops import nms'
	@touch $@

# panopticapi-lite is the one panopticapi on PyPI. Its metadata ask for numpy < 2,
# which its code does not need: without its requirements, which are met.
#
# The package is installed as users install it. An editable install would spare
# the copy, but mim looks for a package beside its metadata in site-packages and
# finds none there, whichever editable mode is used. Edits take effect all the
# same: the copy is renewed (two seconds) before every demo and test.
$(STAMPS)/stack: setup.py $(PINS) | $(STAMPS)/mmcv
	@echo '== setup: mmengine, mmdet, mim and development tools'
	@rm -rf build
	@$(INSTALL) --no-build-isolation $(STACK)
	@$(INSTALL) --no-deps panopticapi-lite
	@touch $@

$(STAMPS)/package: $(SOURCES) | $(STAMPS)/stack
	@echo '== setup: mmdet_centermask'
	@rm -rf build  # or files deleted since the last time would be installed again
	@$(INSTALL) --no-build-isolation --no-deps --force-reinstall .
	@rm -rf build
	@touch $@

.PHONY: fork-wheel build-mmcv rebuild-mmcv headless-opencv compiler
fork-wheel: $(STAMPS)/venv
	@$(PIP) download --quiet --constraint $(PINS) --no-deps --only-binary :all: \
		--dest $(VENV)/wheels $(MMCV) 2>/dev/null

build-mmcv: compiler
	@echo '== setup: no mmcv wheel for this Python; compiling it takes about ten minutes'
	@$(INSTALL) --no-build-isolation $(MMCV)

# A wheel made for another torch, or one that pip kept from a build without torch.
rebuild-mmcv: compiler
	@echo '== setup: the operators of that mmcv do not load here'
	@echo '== setup: compiling it takes about ten minutes'
	@$(INSTALL) --no-build-isolation --no-cache-dir --no-binary $(MMCV) \
		--no-deps --force-reinstall $(MMCV)

# opencv-python needs libGL, which a machine without a screen may not have. The
# headless build of the same version goes over it, so that nothing that asks for
# opencv-python finds it missing.
headless-opencv:
	@echo '== setup: OpenCV finds no graphics libraries; adding its headless build'
	@$(INSTALL) --no-deps --force-reinstall "opencv-python-headless==$$( \
		$(BIN)/python -c 'from importlib.metadata import version as v; \
		print(v("opencv-python"))')"
	@$(BIN)/python -c 'import cv2'

compiler:
	@command -v g++ >/dev/null || { \
		echo 'mmcv has to be compiled, and there is no C++ compiler: install g++'; \
		exit 1; }
	@$(BIN)/python -c 'import os.path as p, sysconfig as s; \
		raise SystemExit(not p.exists(p.join(s.get_path("include"), "Python.h")))' || { \
		echo 'mmcv has to be compiled, and Python.h is missing: install python3-dev'; \
		exit 1; }
