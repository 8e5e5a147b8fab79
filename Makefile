# Only Python >= 3.11 and a C compiler are assumed.
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
STAMP := $(VENV)/.installed
WHEEL := build/wheel

.PHONY: quickstart test test-learning docs bench bench-d3rlpy bench-peers mutation lint wheel clean

quickstart: $(STAMP)
	$(BIN)/robo-rl quickstart $(ARGS)

# Lint and types; then the whole suite on the built wheel, elsewhere.
test: lint wheel
	cd $(WHEEL)/site && $(BIN)/mypy --config-file $(CURDIR)/pyproject.toml -p robo_rl
	cd $(WHEEL)/site && PYTHONPATH=. $(BIN)/lint-imports --no-cache --no-logo --config $(CURDIR)/pyproject.toml
	cd $(WHEEL) && PYTHONPATH=$(CURDIR)/$(WHEEL)/site $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not learning"

test-learning: $(STAMP)
	$(BIN)/python -m pytest -m learning

# The site, in docs/_build/html; a warning is an error. Building reads no network.
docs: $(VENV)/.docs-installed
	rm -rf docs/_build
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "built docs/_build/html/index.html"

$(VENV)/.docs-installed: $(STAMP) docs/requirements.lock
	$(BIN)/python -m pip install --quiet --requirement docs/requirements.lock
	touch $@

bench: $(STAMP)
	$(BIN)/python -m benchmarks.bench $(ARGS)

# The same, and side by side with d3rlpy, in an environment of its own: it pins another Gymnasium.
bench-d3rlpy: $(STAMP)
	test -x $(VENV)-d3rlpy/bin/python || $(PYTHON) -m venv $(VENV)-d3rlpy
	$(VENV)-d3rlpy/bin/python -m pip install --quiet d3rlpy==2.8.1
	$(BIN)/python -m benchmarks.bench --d3rlpy $(VENV)-d3rlpy/bin/python $(ARGS)

# Scores and rates beside d3rlpy's; ARGS="--unifloral CHECKOUT" adds Unifloral's. Hours; goes on.
bench-peers: $(STAMP)
	test -x $(VENV)-d3rlpy/bin/python || $(PYTHON) -m venv $(VENV)-d3rlpy
	$(VENV)-d3rlpy/bin/python -m pip install --quiet d3rlpy==2.8.1
	$(BIN)/python -m benchmarks.peers --d3rlpy $(VENV)-d3rlpy/bin/python $(ARGS)

# Mutants of the rooms against their tests; hours, and it goes on where it was stopped.
mutation: $(STAMP)
	test -x $(VENV)-mutation/bin/python || $(PYTHON) -m venv $(VENV)-mutation
	$(VENV)-mutation/bin/python -m pip install --quiet cosmic-ray==8.7.0 coverage==7.17.5
	test -d $(VENV)-mutation/coverage || $(VENV)-mutation/bin/python -m pip install --quiet --no-deps --target $(VENV)-mutation/coverage coverage==7.17.5
	$(VENV)-mutation/bin/python -m benchmarks.mutation --python $(BIN)/python $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

wheel: $(STAMP)
	rm -rf build dist
	$(BIN)/python -m build --wheel --no-isolation . >/dev/null
	$(BIN)/python -m pip install --quiet --no-deps --target $(WHEEL)/site dist/*.whl
	cp -r tests examples benchmarks docs README.md pyproject.toml $(WHEEL)/

$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $(STAMP)

clean:
	rm -rf $(VENV) $(VENV)-* build build-mutation dist robo_rl.egg-info
