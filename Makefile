PYTHON ?= python3
BIN := .venv/bin
# Of tens of thousands of installed files a few thousand are ever imported: Python compiles those when they are.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile

# Container images often set it: every process would then compile those thousands anew, more than half of its start.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test lint clean

demo: .venv/base  ## every subject of the shipped pictures in new scenes: a contact sheet and a page
	$(BIN)/ssr demo

# A thread a process: where two processes have two each, on two cores, they wait for one another.
test: .venv/installed  ## the whole test suite, 7 to 12 minutes on 2 cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: .venv/installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

.venv/base: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) -c constraints.txt -e .
	touch $@

.venv/installed: .venv/base  ## with everything that tests need
	$(PIP) -c constraints.txt -e ".[test]" ruff
	touch $@

clean:
	rm -rf .venv build *.egg-info
