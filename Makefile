# Both commands make a virtual environment (.venv) from the project's own files when there is none.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_ARGS ?=

.PHONY: demo test lint types unit export-tests integration site format clean

demo: $(VENV)/installed
	$(BIN)/mixreorg demo $(DEMO_ARGS)

test: lint types unit export-tests integration site

lint: $(VENV)/installed
	$(BIN)/ruff check src tests benchmarks docs examples
	$(BIN)/ruff format --check src tests benchmarks docs examples

types: $(VENV)/installed
	$(BIN)/mypy

unit: $(VENV)/installed
	$(BIN)/pytest --ignore tests/integration --ignore tests/unit/export

# A process of their own: ONNX Runtime and OpenVINO bring threads that other native libraries do not expect.
export-tests: $(VENV)/installed
	$(BIN)/pytest tests/unit/export

integration: $(VENV)/installed
	$(BIN)/pytest tests/integration

# Also the check that every link of the documentation leads somewhere.
site: $(VENV)/installed
	$(BIN)/python docs/make_site.py

format: $(VENV)/installed
	$(BIN)/ruff check --fix src tests benchmarks docs examples
	$(BIN)/ruff format src tests benchmarks docs examples

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
