# Everything works on a machine with nothing but Python and a C++ compiler: the first target that needs
# it makes .venv, installs torch there, builds the package and installs it. Safe to repeat.
#
#   make demo     train on printed characters with and without the loss: a table, a picture, reports
#   make check    what a change needs before it is sent, in three minutes: lint, types, the fast tests
#   make test     all tests; TESTS=tests/loss runs these alone
#   make coverage all tests, and which branches of the package they take: a quarter slower
#   make bench    the benchmark grid, training step, histogram and pictures into benchmarks/results/
#   make lint     ruff, mypy and clang-format
#   make compile_commands.json    what clangd wants, to find its way in csrc
#   make matrix   the Triton kernels with other versions of Triton than that of the tests
#   make gpu      on a machine with a GPU, in ten minutes: tests, memcheck, benchmark and profile into
#                 benchmarks/results or RESULTS=<folder>; STEPS=rest runs what has no record there yet
#   make wheel    a wheel in dist/, one for every Python from 3.10 and every torch from 2.10
#
# PYTHON, VENV and TORCH can be set, as in: make test PYTHON=python3.12 TORCH=torch==2.14.0

PYTHON ?= python3
VENV   ?= .venv
# Torch is installed first and pinned, so that nothing that follows pulls in another.
TORCH  ?= torch==2.13.0
# What that torch pairs with on a GPU; here its interpreter and compiler run the kernels' tests.
TRITON ?= triton==3.7.1
OTHER_TRITONS ?= 3.6.0 3.8.0 3.9.0
# Where `make gpu` leaves its figures and its log.
RESULTS ?= benchmarks/results

RUN   := $(VENV)/bin/python
READY := $(VENV)/.ready-$(subst =,-,$(subst /,-,$(TORCH)-$(TRITON)))
CXX_SOURCES := $(foreach kind,h cuh cpp cu,$(wildcard csrc/*/*.$(kind) csrc/*/*/*.$(kind) tests/support/*.$(kind) tests/support/*/*.$(kind)))
BUILD := pyproject.toml setup.py $(CXX_SOURCES)

.PHONY: demo check test coverage bench lint matrix gpu wheel clean compile_commands.json
.DELETE_ON_ERROR:

demo: $(READY)
	$(RUN) -m tcm_kernels demo

# A process a core, a file of tests to each, the long ones first (tests/conftest.py): twice as fast on two.
PYTEST := $(RUN) -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test: $(READY)
	$(PYTEST) $(if $(TESTS),$(TESTS),--durations=15)

coverage: $(READY)
	$(PYTEST) --cov --cov-report=term

check: lint
	$(PYTEST) -q -m "not slow"

bench: $(READY)
	$(RUN) -m benchmarks.suites.grid
	$(RUN) -m benchmarks.suites.training_step
	$(RUN) -m benchmarks.suites.histogram
	$(RUN) -m benchmarks.reports.figures

lint: $(READY)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/clang-format --dry-run --Werror $(CXX_SOURCES)

compile_commands.json: $(READY)
	$(RUN) csrc/compile_commands.py

# Triton 3.6's interpreter takes arrays of one element for numbers, which NumPy has refused since 2.4
# and warned of before.
matrix: $(READY)
	for version in $(OTHER_TRITONS); do \
	  $(RUN) -m pip install --quiet --upgrade --no-deps --target build/triton-$$version triton==$$version \
	    "numpy<2.4" && \
	  PYTHONPATH=build/triton-$$version $(RUN) -m pytest -q tests/backends/triton \
	    -W "ignore:Conversion of an array with ndim:DeprecationWarning" || exit 1; \
	done

# Uses the python3 that is there, with its torch and Triton: such a machine need not reach any network.
gpu:
	$(PYTHON) -m benchmarks.gpu --results "$(RESULTS)" $(if $(STEPS),--steps "$(STEPS)")

wheel: $(READY)
	$(RUN) -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir dist .
	@ls dist/*.whl

clean:
	rm -rf build dist *.egg-info tcm_kernels/*.so compile_commands.json $(VENV)

$(RUN):
	$(PYTHON) -m venv $(VENV)

# Bytecode is made of what is imported, when it is: of all of torch it takes as long as to install it.
$(READY): export PIP_NO_COMPILE = 1
$(READY): $(BUILD) | $(RUN)
	rm -f $(VENV)/.ready-*
	$(RUN) -m pip install --quiet "$(TORCH)" "$(TRITON)" "setuptools>=77" wheel ninja
	TCM_KERNELS_STRICT=1 $(RUN) -m pip install --quiet --no-build-isolation --editable ".[demo,test,bench,lint]"
	touch $@
