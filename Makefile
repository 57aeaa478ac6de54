# Every target works on a fresh machine: it makes the virtual environment first.
VENV ?= .venv
BIN := $(VENV)/bin
VENV_MIN ?= .venv-min
OUT ?= runs/demo
PYTHON ?= python3

.PHONY: demo demo-real test test-slow test-min check bench docs clean

$(BIN)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[demo,dev]'
	touch $@

demo: $(BIN)/.installed  ## all steps with the demo's small model and data; ends in a table and report.html
	$(BIN)/midalign demo --out $(OUT)

demo-real: $(BIN)/.installed  ## the same on a real pretrained model (SmolLM2-135M), in twenty minutes
	$(BIN)/midalign demo --real --out $(OUT)-real

test: $(BIN)/.installed  ## the fast suite, offline
	$(BIN)/python -m pytest -n auto -q

test-slow: $(BIN)/.installed  ## everything that needs minutes
	$(BIN)/python -m pytest -q -m slow

# uv takes a plain torch from PyPI, on Linux with CUDA; `UV_TORCH_BACKEND=cpu make test-min` takes the CPU build.
$(VENV_MIN)/.installed: pyproject.toml
	$(PYTHON) -m venv --clear $(VENV_MIN)
	$(VENV_MIN)/bin/python -m pip install --quiet uv
	$(VENV_MIN)/bin/uv pip install --quiet --python $(VENV_MIN)/bin/python --resolution lowest-direct \
		-e '.[demo,dev,faiss,qlora,trackers]'
	touch $@

test-min: $(VENV_MIN)/.installed  ## the fast suite with the lowest versions that pyproject.toml allows
	$(VENV_MIN)/bin/python -m pytest -n auto -q

check: $(BIN)/.installed  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(BIN)/.installed  ## every benchmark that runs on a CPU
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

docs: $(BIN)/.installed  ## the documentation as a site in site/; a dead link is an error
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	$(BIN)/python -m mkdocs build --strict

clean:
	rm -rf $(VENV) $(VENV_MIN) runs build dist site .pytest_cache .mypy_cache .ruff_cache
