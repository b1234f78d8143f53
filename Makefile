# make repro   set-up and the main job: the headline pipeline, then its table
# make real    set-up and the study on a pretrained model (families.yaml: smollm2), on DOLLY=path of its JSONL
# make test    set-up and the tests
# make lint    set-up, style, spelling, the rooms' order and types
# make hostile set-up and the hostile inputs of tests/robustness/hostile, with their counts
# make faults  set-up and the long tests that kill the pipeline and fill its disk
# make readme  set-up, then the figures in README.md and docs/runs.md and the picture of the rooms
# make bench   set-up and the benchmarks (JSON on standard output)
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
export GX_ANALYTICS_ENABLED := false
export HF_HUB_DISABLE_TELEMETRY := 1
export DVC_NO_ANALYTICS := true

.PHONY: repro study real test hostile faults bench lint readme setup clean

repro: setup
	dvc repro
	@kdleak results

study: setup
	dvc repro -P

# A student after the other, on one teacher; stopped, the same command goes on where it was.
DOLLY ?= ../shared/data/databricks-dolly-15k.jsonl
METHODS ?= [kd]
real: setup
	@test -f "$(DOLLY)" || { echo "make real: $(DOLLY): no such file; name that of Dolly: make real DOLLY=path" >&2; exit 1; }
	for size in same pruned; do \
		dvc exp run -P -S data.source=file -S data.path="$(abspath $(DOLLY))" -S 'study.methods=$(METHODS)' \
			$$(kdleak family smollm2 $$size) && kdleak results || exit 1; \
	done

test: setup
	OMP_NUM_THREADS=1 python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

hostile: setup
	KDLEAK_HOSTILE=all OMP_NUM_THREADS=1 python -m pytest -m 'faults or not faults' -p no:cacheprovider tests/robustness/test_hostile*.py \
		tests/robustness/test_limits.py tests/robustness/test_private_*.py

faults: setup
	OMP_NUM_THREADS=1 python -m pytest -m faults -p no:cacheprovider

bench: setup
	@for b in benchmarks/[a-z]*.py; do python $$b || exit 1; done

lint: setup
	ruff check . && ruff format --check .
	codespell
	lint-imports --no-cache
	basedpyright

setup: .venv/.complete

.venv/.complete: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("kdleak needs Python 3.11 or newer; name one: make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[convert,dev,dp,pipeline]'
	@touch $@

readme: setup
	python docs/make_readme.py
	python docs/make_architecture.py
	python docs/make_runs.py

clean:
	rm -rf .venv .kdleak
