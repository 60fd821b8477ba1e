# Two commands are all a fresh machine needs: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := text,fast,ot,tune,demo,dev

.PHONY: demo test check golden bench docs clean

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$(EXTRAS)]"
	touch $@

demo: $(VENV)/.installed ## the main job on real handwritten digits
	$(BIN)/python examples/handwritten_digits.py

check: $(VENV)/.installed ## lint, types, architecture, unit tests, doctests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not golden"

golden: $(VENV)/.installed ## slower tests, on real data
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m golden

test: check golden ## everything

bench: $(VENV)/.installed ## side-by-side measurements, results in benchmarks/results
	$(BIN)/python benchmarks/run_all.py

docs: $(VENV)/.installed ## run every snippet of the documentation, then build it
	$(BIN)/python docs/build.py

clean:
	rm -rf $(VENV) build dist demo site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
