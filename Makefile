# Two commands do everything, set-up included:
#   make demo    train a detector on a photograph, show the result
#   make test    run the tests
#   make torture tries what is adverse for long, before a release
# STACK=openmmlab takes the original MMCV, MMEngine, MMDetection, MMSegmentation instead of the forks.
# OPS=1 compiles mmcv's operators, as is done where there is a GPU; OPS=0 takes torchvision's.
STACK ?= onedl
PYTHON ?= python3
VENV := .venv$(if $(filter-out onedl,$(STACK)),-$(STACK))
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: demo demo-maskrcnn demo-fpn test torture lint setup

demo: setup
	@python tools/datasets/demo.py retinanet_convmlp_s_fpn_coins

demo-maskrcnn: setup
	@python tools/datasets/demo.py maskrcnn_convmlp_s_fpn_coins

demo-fpn: setup
	@python tools/datasets/demo.py fpn_convmlp_s_coins

test: setup
	python -m pytest

torture: setup
	python -m pytest -m 'torture or adversary' --hypothesis-profile=torture \
	    --hypothesis-show-statistics

lint: setup
	python -m ruff check .
	python -m ruff format --check .
	python -m mypy

setup:
	@command -v $(PYTHON) >/dev/null || { \
	    echo 'error: no $(PYTHON) here; install Python 3.11 to 3.13'; exit 1; }
	@$(PYTHON) tools/dev/setup_env.py $(STACK)
