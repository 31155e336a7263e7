# Everything happens in .venv; `make test` makes it. PYTHON3 is what it is made from.
PYTHON3 ?= python3
PYTHON ?= .venv/bin/python
BIN := $(dir $(PYTHON))

.PHONY: help
help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: test
test: tools .venv/installed ## install what the tests need, then check and test everything
	$(MAKE) check
	@sh .ci/tests $(BIN)pytest $(ARGS)

.PHONY: check
check: ## formatting, lint, types, layers
	$(BIN)ruff format --check .
	$(BIN)ruff check .
	$(BIN)mypy
	$(BIN)lint-imports

.PHONY: format
format: ## put the code in shape, as far as a program can
	$(BIN)ruff format .
	$(BIN)ruff check --fix .

.PHONY: install
install: .venv/installed ## make .venv with the project, editable, and its tools

.venv/installed: pyproject.toml package-lock.json hatch_build.py
	$(PYTHON3) -m venv .venv
	.venv/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	.venv/bin/python -m pip install --quiet --editable . --group dev
	touch $@

.PHONY: tools
tools: ## Debian's packages for the tests, as root (NO_APT=1 leaves them out)
	@sh .ci/debian-packages

.PHONY: bench
bench: ## measure the proxy against its baselines; ARGS="--help" lists what can be chosen
	$(PYTHON) -m bench $(ARGS)

.PHONY: torture
torture: ## kill, stop, freeze, cut, fill and damage it for half an hour; CRASH_SEED repeats a run
	CRASH_FIGURES=$(abspath .crash-figures.jsonl) $(BIN)pytest tests/crash -m torture $(ARGS)

.PHONY: boot
boot: ## follow docs/install.md on a Debian booted for it, in about four minutes; as root, with debootstrap
	$(BIN)pytest tests/boot -m torture $(ARGS)

.PHONY: fuzz
fuzz: ## send mutated requests for a minute, or for CRASH_FUZZ_SECONDS
	CRASH_FUZZ_SECONDS=$${CRASH_FUZZ_SECONDS:-60} $(BIN)pytest tests/crash/test_fuzz.py -s $(ARGS)

.PHONY: screenshots
screenshots: ## take docs/screenshots anew, of the operators' page with traffic and an outage
	$(PYTHON) -m tests.e2e.screenshots

.PHONY: clean
clean: ## forget what was built and tested; .venv stays
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .crash-figures.jsonl
