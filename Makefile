# `make ask` runs the main job, `make test` the tests; both set up .venv first (python3 and make are all they need).
#
# torch comes first and by itself, so that you choose its build:
#   make ask TORCH="torch==2.13.0 --index-url <one of PyTorch's indexes, for your CUDA version or for the CPU>"
# An environment of your own works as well: `pip install torch`, then `pip install -e .[browser,demo,eval,ray,serve,dev]`.

PYTHON ?= python3
TORCH ?= torch==2.13.0
TORCHVISION := 0.28.0
FLOOR := 5.16.0
MODEL ?=
EXAMPLE := demos/clips/clip.mp4
CLIP ?= $(EXAMPLE)
ABOUT_EXAMPLE := "What colour is shown first in the video?" "Name the one of these that appears: 4, key, car or cross." \
	"Tell me which colour the circle has." "How many things are shown in the clip?" \
	"In which direction is the marker going?"
QUESTIONS ?= $(if $(filter $(EXAMPLE),$(CLIP)),$(ABOUT_EXAMPLE),"What happens in this video?")
# one question needs no quotes of its own: QUESTIONS="Who is there?", or QUESTIONS='"Who is there?" "What do they do?"'
ASKED = $(if $(filter "% '%,$(firstword $(QUESTIONS))),$(QUESTIONS),"$(QUESTIONS)")
WITH_MODEL = $(if $(MODEL),--model "$(MODEL)" --or-built-in)
CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome || echo chromium)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
LMMS_PIP := .venv-lmms-eval/bin/python -m pip --disable-pip-version-check install --quiet

.PHONY: ask demo screenshots gpu gpu-wheels test test-slow test-portable test-browser test-processors test-quantized test-torchcodec test-range test-lmms-eval test-pythons release-check lint parts picture methods families format clean help

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

ask: .venv/ready  ## ask a model about a clip: make ask MODEL=NAME CLIP=mine.mp4 QUESTIONS="What happens?"
	@echo "[ask] $(or $(MODEL),the built-in model) watches $(CLIP)"
	@$(BIN)/pdrop-video ask "$(CLIP)" $(ASKED) $(WITH_MODEL)

demo: .venv/ready  ## the page on which people ask a video: make demo MODEL=NAME; options: DEMO="--port 8080"
	@echo "[demo] the page, with $(or $(MODEL),the built-in model)"
	@$(BIN)/pdrop-video demo $(WITH_MODEL) $(DEMO)

screenshots: .venv/ready  ## the pictures of the page in docs/, taken from the running page in Chromium
	@$(BIN)/python -m demos.screenshots --chromium $(CHROMIUM)

# The machine with the card may have no .venv, and no network to make one.
GPU_PYTHON ?= $(if $(wildcard .venv/ready),$(BIN)/python,$(PYTHON))

gpu:  ## the device check, under eight minutes on one card; options: make gpu GPU="--device cpu --small"
	@$(GPU_PYTHON) -m eval.gpu $(GPU)

gpu-wheels: .venv/ready  ## wheels for a machine without a network: make gpu-wheels HAVE=what_pip_list_says.txt GPU_VERSION=3.12
	@$(BIN)/python -m eval.gpu.wheels $(HAVE) --python $(or $(GPU_VERSION),3.12) --to wheels

# A file at a time for each processor, as what a file's tests share is made once; each takes one thread and some GB.
PARALLEL ?= --numprocesses=auto --maxprocesses=4 --dist=loadfile

test: .venv/ready  ## the tests
	@echo "[test] pytest"
	@$(BIN)/python -m pytest $(PARALLEL)

test-slow: .venv/ready  ## the long proofs
	@$(BIN)/python -m pytest $(PARALLEL) -m slow

# what selects, streams and loads, under other kernels and numbers of threads; oneDNN is told of every limit, too: torch
# packs what it multiplies as oneDNN would have it, which kernels of a lesser kind refuse (processors with amx_fp16)
PORTABLE ?= tests/test_ties.py tests/test_joint.py tests/test_rank.py tests/test_stream.py tests/test_loading.py
KERNELS ?= "ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 OMP_NUM_THREADS=1" \
	"ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 OMP_NUM_THREADS=2" \
	"ONEDNN_MAX_CPU_ISA=AVX2 OMP_NUM_THREADS=1" "OMP_NUM_THREADS=1" "OMP_NUM_THREADS=2"

test-portable: .venv/ready  ## the same tokens stay under other kernels and numbers of threads
	@for kernels in $(KERNELS); do \
		echo "[test-portable] $$kernels pytest $(PORTABLE)"; \
		env $$kernels $(BIN)/python -m pytest $(PARALLEL) $(PORTABLE) || exit 1; \
	done
	@echo "[test-portable] pytest -m portable"
	@$(BIN)/python -m pytest -m portable tests/test_portable.py

test-browser: .venv/ready  ## the page in headless Chromium (Debian: apt-get install chromium)
	@echo "[test-browser] pytest -m browser"
	@$(BIN)/python -m pytest -m browser tests/test_browser*.py --chromium $(CHROMIUM)

test-processors: .venv-processors/ready  ## preprocessing against transformers' video processors, which need torchvision
	@echo "[test-processors] pytest"
	@.venv-processors/bin/python -m pytest -m processors tests/test_processors.py tests/test_hybrid_processors.py \
		tests/test_derived.py tests/test_omni.py

test-quantized: .venv-quantized/ready  ## quantised checkpoints, with the real bitsandbytes and torchao
	@echo "[test-quantized] pytest"
	@.venv-quantized/bin/python -m pytest -m quantized tests/test_quantized.py

test-torchcodec: .venv-torchcodec/ready  ## frames by torchcodec (Debian: apt-get install libavdevice59 and what it needs)
	@echo "[test-torchcodec] pytest"
	@.venv-torchcodec/bin/python -m pytest -m torchcodec tests/test_video_torchcodec.py

test-range: .venv-floor/ready .venv/ready  ## the tests on the oldest supported and the newest transformers
	@$(call newest)
	@echo "[test-range] transformers $(FLOOR), without the training code of the built-in model, which needs a newer one"
	@.venv-floor/bin/python -m pytest $(PARALLEL) --deselect tests/test_synthetic.py::test_training_vision_path_equals_the_library_model
	@echo "[test-range] transformers $$(.venv-newest/bin/python -c 'import transformers; print(transformers.__version__)')"
	@.venv-newest/bin/python -m pytest $(PARALLEL)

test-lmms-eval: .venv-lmms-eval/ready  ## the plugin inside the real lmms-eval, in an environment of its own
	@echo "[test] pytest -m lmms_eval"
	@HF_HOME=$(CURDIR)/.venv-lmms-eval/cache HF_HUB_OFFLINE=1 .venv-lmms-eval/bin/python -m pytest -m lmms_eval tests/test_lmms_eval.py

test-pythons: .venv/ready  ## the tests on each Python from 3.10 to 3.13 that is at hand; make test-pythons PYTHON_TESTS=tests/test_cli.py
	@TORCH="$(TORCH)" PARALLEL="$(PARALLEL)" .ci/pythons $(PYTHON_TESTS)

# Nothing is pinned but torch: what is installed is what somebody gets who installs the wheel today.
release-check: .venv/ready  ## build sdist and wheel, install the wheel into an empty environment, and use it there
	@rm -rf dist .venv-release
	@echo "[release 1/4] sdist and wheel"
	@$(BIN)/python -m build --outdir dist . >/dev/null && $(BIN)/python -m twine check --strict dist/*
	@echo "[release 2/4] $(TORCH) in .venv-release"
	@$(PYTHON) -m venv .venv-release
	@.venv-release/bin/python -m pip --disable-pip-version-check install --quiet $(TORCH)
	@echo "[release 3/4] the wheel, with what the page, the benchmarks and the server need"
	@.venv-release/bin/python -m pip --disable-pip-version-check install --quiet \
		"$$(ls dist/*.whl)[demo,eval,serve]"
	@echo "[release 4/4] pytest -m release"
	@$(BIN)/python -m pytest -m release tests/test_release.py

lint: .venv/ready  ## ruff, mypy and the import contracts
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

# Some twenty minutes on one free core beside the rendering; what a stopped run has made is not made again.
WORK ?= parts-work
OF_PARTS = --split train --seed 40001 --short 60 --medium 0 --long 0 --questions 8 --lines --workers 1

parts: .venv/ready  ## train all parts that ship with the built-in model anew: make parts WORK=folder
	@test -f $(WORK)/still/lines.jsonl || $(BIN)/python -m eval.synthetic.make --out $(WORK)/still $(OF_PARTS)
	@test -f $(WORK)/moving/lines.jsonl || $(BIN)/python -m eval.synthetic.make --out $(WORK)/moving $(OF_PARTS) --moving
	@OMP_NUM_THREADS=1 $(BIN)/python -m pdrop_video.train_part all --data $(WORK)/still/lines.jsonl \
		--data $(WORK)/moving/lines.jsonl --out pdrop_video/builtin/parts --work $(WORK)

picture: .venv/ready  ## the way of one frame, drawn from the code's imports into CONTRIBUTING.md
	@$(BIN)/python tests/house.py

.PHONY: docs
docs: .venv-docs/ready  ## the site of README.md and docs/, with the API, into .site/; a link that leads nowhere ends it
	@echo "[docs] mkdocs build --strict"
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --config-file docs/site/mkdocs.yml

methods: .venv/ready  ## the tables and formulas of methods, written into README.md and docs/ from what the methods say of themselves
	@$(BIN)/python tests/methods.py

families: .venv-floor/ready .venv/ready  ## the tables of model types, in README.md and docs/: what three versions of transformers say
	@$(call newest)
	@$(BIN)/python tests/served.py .venv-floor/bin/python .venv/bin/python .venv-newest/bin/python

format: .venv/ready  ## ruff's formatter and safe fixes
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

clean:  ## remove the environments
	rm -rf .site .venv .venv-docs .venv-processors .venv-quantized .venv-torchcodec .venv-floor .venv-newest .venv-lmms-eval .venv-release .venv-python-*

.venv/ready: pyproject.toml .ci/constraints.txt
	@echo "[env 1/3] $(PYTHON) -m venv .venv"
	@$(PYTHON) -m venv .venv
	@echo "[env 2/3] $(TORCH)"
	@$(PIP) $(TORCH)
	@echo "[env 3/3] pdrop-video with what the tests and the benchmark need (a minute or two)"
	@$(PIP) --constraint .ci/constraints.txt --editable ".[browser,demo,eval,ray,serve,dev]"
	@touch $@

# An environment of its own that finds what it does not have in .venv: torch is fetched and stored once.
overlay = $(BIN)/python -m venv $(1) && \
	$(BIN)/python -c "import sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" \
	> $$($(1)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/base.pth

# made or brought up to date whenever it is asked for
newest = $(call overlay,.venv-newest) && \
	.venv-newest/bin/python -m pip --disable-pip-version-check install --quiet --upgrade transformers

.venv-processors/ready: .venv/ready
	@echo "[env] .venv-processors: torchvision $(TORCHVISION) beside .venv"
	@$(call overlay,.venv-processors)
	@# without its dependencies: they are a torch of another build, gigabytes of it, and what .venv has already
	@.venv-processors/bin/python -m pip --disable-pip-version-check install --quiet --no-deps torchvision==$(TORCHVISION)
	@.venv-processors/bin/python -m pip --disable-pip-version-check install --quiet num2words==0.5.14
	@touch $@

.venv-docs/ready: pyproject.toml .ci/constraints.txt .venv/ready
	@echo "[env] .venv-docs: mkdocs-material and mkdocstrings beside .venv"
	@$(call overlay,.venv-docs)
	@.venv-docs/bin/python -m pip --disable-pip-version-check install --quiet --constraint .ci/constraints.txt --editable ".[docs]"
	@touch $@

.venv-quantized/ready: .venv/ready
	@echo "[env] .venv-quantized: bitsandbytes and torchao beside .venv"
	@$(call overlay,.venv-quantized)
	@# without its dependencies, which .venv has already
	@.venv-quantized/bin/python -m pip --disable-pip-version-check install --quiet --no-deps bitsandbytes==0.50.2 torchao==0.18.0
	@touch $@

.venv-torchcodec/ready: .venv/ready
	@echo "[env] .venv-torchcodec: torchcodec beside .venv"
	@$(call overlay,.venv-torchcodec)
	@.venv-torchcodec/bin/python -m pip --disable-pip-version-check install --quiet --no-deps torchcodec==0.13.0
	@touch $@

.venv-floor/ready: .venv/ready
	@echo "[env] .venv-floor: transformers $(FLOOR) beside .venv"
	@$(call overlay,.venv-floor)
	@.venv-floor/bin/python -m pip --disable-pip-version-check install --quiet transformers==$(FLOOR)
	@touch $@

.venv-lmms-eval/ready: pyproject.toml .ci/lmms-eval.txt
	@echo "[env 1/3] $(PYTHON) -m venv .venv-lmms-eval"
	@$(PYTHON) -m venv .venv-lmms-eval
	@echo "[env 2/3] $(TORCH)"
	@$(LMMS_PIP) $(TORCH)
	@echo "[env 3/3] pdrop-video and lmms-eval, without torchvision"
	@$(LMMS_PIP) --requirement .ci/lmms-eval.txt --editable .
	@$(LMMS_PIP) --no-deps lmms-eval==0.7.3
	@touch $@
