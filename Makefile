# `make ask` runs the main job, `make test` the tests; both set up .venv first (python3 and make are all they need).
#
# torch comes first and by itself, so that you choose its build:
#   make ask TORCH="torch==2.13.0 --index-url <one of PyTorch's indexes, for your CUDA version or for the CPU>"
# An environment of your own works as well: `pip install torch`, then `pip install -e .[eval,ray,dev]`.

PYTHON ?= python3
TORCH ?= torch==2.13.0
CLIP ?= demos/clips/clip.mp4
QUESTIONS ?= "Which color is the first thing in the video?" "Please name the shape that appears first." \
	"What digit is shown last in the video?" "Can you count the things shown in this video?" \
	"In which direction is the marker going?"
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: ask test test-slow lint format clean help

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

ask: .venv/ready  ## watch a clip with the built-in model and answer questions about it
	@echo "[ask] the built-in model watches $(CLIP)"
	@$(BIN)/pdrop-video ask $(CLIP) $(QUESTIONS)

test: .venv/ready  ## the tests
	@echo "[test] pytest"
	@$(BIN)/python -m pytest

test-slow: .venv/ready  ## the long proofs
	@$(BIN)/python -m pytest -m slow

lint: .venv/ready  ## ruff and mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: .venv/ready  ## ruff's formatter and safe fixes
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

clean:  ## remove the environment
	rm -rf .venv

.venv/ready: pyproject.toml .ci/constraints.txt
	@echo "[env 1/3] $(PYTHON) -m venv .venv"
	@$(PYTHON) -m venv .venv
	@echo "[env 2/3] $(TORCH)"
	@$(PIP) $(TORCH)
	@echo "[env 3/3] pdrop-video with what the tests and the benchmark need (a minute or two)"
	@$(PIP) --constraint .ci/constraints.txt --editable ".[eval,ray,dev]"
	@touch $@
