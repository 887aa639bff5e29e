# Two commands are all a newcomer needs: `make quickstart` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OUT ?= runs/quickstart

.PHONY: quickstart test lint unit bench bench-corpus docs clean

quickstart: $(STAMP)
	$(BIN)/codesieve run quickstart --out $(OUT)

test: lint unit

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p .cache && ln -sfn .. .cache/codesieve
	MYPYPATH=.cache $(BIN)/mypy -p codesieve

# Two processes: 9 minutes on two cores instead of 14.
unit: $(STAMP)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

bench: $(STAMP)
	$(BIN)/python benchmarks/annotate.py
	$(BIN)/python benchmarks/annotate.py --gates
	$(BIN)/python benchmarks/annotate.py --gates --megabytes 60 --workers 2
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/tokenise.py
	$(BIN)/python benchmarks/train.py --against transformers nanogpt

# Downloads 300 MB of packages; the benchmarks of annotation take what it makes.
bench-corpus: $(STAMP)
	$(BIN)/python benchmarks/corpus.py

docs: $(STAMP)
	$(BIN)/python docs/make_reference.py

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) .cache runs build *.egg-info
	find . -name '*.nbi' -delete -o -name '*.nbc' -delete  # compiled loops
