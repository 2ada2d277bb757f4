# Isochron. `make help` lists the targets. Each one makes its own .venv first: Python >= 3.11 and make are all it needs.
# Works with GNU make 3.81 and later.

#: COMPARISON  what to compare: a name from `isochron list comparisons`, or a YAML file
COMPARISON = nvs
#: PRESET      size of task and architectures: tiny (2 cores), small (one GPU), paper (empty: the comparison's own, tiny)
PRESET =
#: BUDGET      charged time of each run, such as 25s, 10m, 24h (empty: the comparison's own)
BUDGET =
#: SEEDS       how many seeds; every arm runs once for each (empty: the comparison's own)
SEEDS =
#: BATCH       batch policy: fill, knee or fixed:N (empty: the comparison's own)
BATCH =
#: DEVICE      auto, cpu, cuda or cuda:N (empty: the comparison's own, auto)
DEVICE =
#: OUT         folder for the runs (empty: a new one under runs/), or file of `make bundle`, `make compare`, `make report`
OUT =
#: TASK        whose architectures `make measure-efficiency` measures: nvs, masked-image, hydrology, vos, tracking or openvocab
TASK = nvs
#: CURVES      curves for `make scaling-curve`: names of bench/curves or YAML files (empty: the default ones)
CURVES =
#: FILES       fixtures for `make parity`
FILES = $(wildcard tests/fixtures/*.safetensors tests/fixtures/*/*.safetensors)
#: FOLDERS     results for `make paper-tables`, `make claims`, `make report` (empty: the published ones), `make bundle`, `make compare`
FOLDERS =
#: ARGS        more arguments for pytest in `make test`, `make test-all` and `make bench-micro`, such as ARGS="-k ledger"
ARGS =
#: PYTHON      interpreters that .venv may be made from; the first one that is new enough is taken
PYTHON = python3 python3.13 python3.12 python3.11
#: UPGRADE     with `make lock`: 1 moves every pin to the newest release (empty: only what pyproject.toml asks for)
UPGRADE =

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --no-input
STAMP := $(VENV)/.installed
UNFINISHED := $(VENV)/.unfinished

# A misspelt variable would otherwise be ignored in silence, and the run would not be the one that was meant. (Variables
# are taken from the command line only: assigned with `=` above, they hide an environment variable of the same name.)
known := COMPARISON PRESET BUDGET SEEDS BATCH DEVICE OUT TASK CURVES FILES FOLDERS ARGS PYTHON UPGRADE
given := $(foreach v,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(v)))),$(v)))
unknown := $(filter-out $(known) MAKE% -%,$(given))
ifneq ($(unknown),)
$(error unknown variable $(unknown); known: $(known); see `make help`)
endif

quote = '$(subst ','\'',$(strip $(1)))'
flag = $(if $(strip $(2)),--$(1) $(call quote,$(2)))
what = $(call quote,$(COMPARISON)) $(call flag,preset,$(PRESET)) $(call flag,budget,$(BUDGET)) \
	$(call flag,seeds,$(SEEDS)) $(call flag,batch,$(BATCH)) $(call flag,device,$(DEVICE))
out = $(call flag,out,$(OUT))

.DEFAULT_GOAL := help
.PHONY: help install test test-all lint format bench-time-budget bench-aa bench-micro measure-efficiency paper-tables claims scaling-curve \
	bundle compare report plan probe doctor parity lock clean distclean FORCE

help: ## this list
	@echo 'Isochron: what does each architecture make of the same seconds and all the memory?'
	@echo
	@echo 'Targets (make TARGET [VARIABLE=value ...]):'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo 'Variables:'
	@awk '/^#: / { sub(/^#: /, "  "); print; getline; sub(/^[A-Z]+ = ?/, ""); if ($$0 != "" && !/wildcard/) printf "              (default: %s)\n", $$0 }' Makefile
	@echo
	@echo 'Example: make bench-time-budget BUDGET=45s SEEDS=5'
	@echo 'All that the command can do: .venv/bin/isochron --help'

install: $(STAMP) ## make .venv from requirements.lock (every other target does this by itself)

bench-time-budget: $(STAMP) ## the main job: every arm gets the same seconds; table and figures are written
	$(PY) -m bench run $(what) $(out)

bench-aa: $(STAMP) ## one arm under two names: how often do two equals not tie?
	$(PY) -m bench aa $(what) $(out)

bench-micro: $(STAMP) ## time attention and block kernels of the arms; JSON goes to runs/micro/
	@mkdir -p runs/micro
	$(PY) -m pytest tests/micro --benchmark-only \
		--benchmark-json=runs/micro/$(shell date +%Y%m%d-%H%M%S).json $(ARGS)

measure-efficiency: $(STAMP) ## parameters and FLOPs at full size, time and memory of single calls; trains nothing (TASK=...)
	$(PY) -m bench measure-efficiency $(call quote,$(TASK)) $(call flag,preset,$(PRESET)) $(call flag,device,$(DEVICE)) $(out)

scaling-curve: $(STAMP) ## cost and quality against views, frames, tokens, budget; power laws that must predict the largest point
	$(PY) -m bench scaling-curve $(CURVES) $(call flag,budget,$(BUDGET)) $(call flag,seeds,$(SEEDS)) $(call flag,device,$(DEVICE)) $(out)

paper-tables: $(STAMP) ## published tables with our numbers beside them: cost and trained quality, from stored results
	$(PY) -m bench paper-tables $(FOLDERS) $(out)

claims: $(STAMP) ## hold every quoted claim against stored results: reproduced, not reproduced, or what would test it
	$(PY) -m bench claims $(FOLDERS) $(out)

bundle: $(STAMP) ## pack finished results into one file that verifies elsewhere (FOLDERS="..." OUT=FILE)
	$(PY) -m bench bundle $(FOLDERS) $(out)

compare: $(STAMP) ## two results of another commit, device or budget beside each other (FOLDERS="A B" OUT=FILE.md)
	$(PY) -m bench compare $(FOLDERS) $(out)

report: $(STAMP) ## all results in one HTML page that opens from disk: tables, curves, pictures, samples, claims
	$(PY) -m bench report $(FOLDERS) $(out)

plan: $(STAMP) ## what the main job would run, how long, with how much memory and disk; starts nothing
	$(PY) -m bench plan $(what)

probe: $(STAMP) ## memory and throughput over the batch size, for every arm
	$(PY) -m bench probe $(call quote,$(COMPARISON)) $(call flag,preset,$(PRESET)) $(call flag,device,$(DEVICE))

doctor: $(STAMP) ## what this machine offers, what is missing, and what follows from it
	$(PY) -m bench doctor

parity: $(STAMP) ## compare the architectures with stored outputs of the published code (FILES=...)
	@test -n "$(FILES)" || { echo 'make parity: no fixtures; name them: make parity FILES="a.safetensors b.safetensors"' >&2; exit 2; }
	$(PY) -m bench parity $(FILES)

test: $(STAMP) ## tests, offline, in up to four processes (ARGS="-n 0": in one), without the slow ones
	$(PY) -m pytest -n auto --dist loadfile -m 'not slow' $(ARGS)

test-all: $(STAMP) ## all tests, with the slow ones: whole runs that are killed and resumed, counters over whole networks
	$(PY) -m pytest -n auto --dist loadfile $(ARGS)

lint: $(STAMP) ## formatting, ruff's rules and types; changes nothing
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy

format: $(STAMP) ## format the code and mend what ruff can mend
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

lock: ## maintainers: write requirements.lock from pyproject.toml (UPGRADE=1 moves every pin)
	python3 -m venv --clear .venv-lock
	.venv-lock/bin/python -m pip --disable-pip-version-check install --quiet uv
	.venv-lock/bin/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --quiet $(if $(strip $(UPGRADE)),--upgrade) -o requirements.lock
	rm -rf .venv-lock

clean: ## remove caches and build leftovers; keeps .venv, runs/ and results/
	rm -rf build dist isochron.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find bench models baselines tests -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean ## remove .venv as well
	rm -rf $(VENV) .venv-lock

# The stamp holds the folder that was installed: a moved or copied tree installs itself anew, and so does one whose
# interpreter is gone.
ifneq ($(wildcard $(STAMP)),)
ifneq ($(shell cat $(STAMP); $(PY) -c '' 2>&1 || echo broken),$(CURDIR))
redo := FORCE
endif
endif
FORCE:

# An install that was cut short leaves the mark, and the next one starts from an empty .venv.
$(STAMP): requirements.lock pyproject.toml $(redo)
	@set -e; found=; \
	for python in $(PYTHON); do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "Isochron needs Python >= 3.11; tried: $(PYTHON). Name one: make install PYTHON=path/to/python3.12" >&2; exit 1; \
	fi; \
	if [ -e $(UNFINISHED) ] || ! $(PY) -m pip --version >/dev/null 2>&1; then \
		echo "making $(VENV) with $$("$$found" --version)"; \
		"$$found" -m venv --clear $(VENV) || { \
			echo "could not make $(VENV): is the venv module there? (Debian, Ubuntu: the package python3-venv)" >&2; exit 1; }; \
	fi; \
	touch $(UNFINISHED)
	@echo 'installing requirements.lock into $(VENV) (a few GB with the CUDA libraries on Linux; minutes, once)'
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation --quiet -e .
	@rm -f $(UNFINISHED); printf '%s\n' '$(CURDIR)' > $@
