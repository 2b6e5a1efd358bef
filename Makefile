# make tutorial · test · check · lab · site · solutions · figures · results · bench · address: each sets up what it needs.
PYTHON ?= python3
VENV   := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
READY := $(VENV)/.installed
BENCH := $(VENV)/.bench-installed

.PHONY: tutorial test check lab site solutions figures results bench save save-imagenet address clean help

help:
	@echo "make tutorial   run the notebooks and write pages to build/"
	@echo "make test       run every test and every notebook (a quarter of an hour)"
	@echo "make check      run the tests that need no browser and no notebook (two minutes)"
	@echo "make lab        open JupyterLab at notebook 00"
	@echo "make site       write the series as a website to build/site, with live views"
	@echo "make solutions  write the notebooks with all exercises solved to build/solutions"
	@echo "make figures    draw figures/ again"
	@echo "make save       run the notebooks and save their outputs in place"
	@echo "make save-imagenet   run notebook 09 on the authors' B/16 (228 MB to download) and keep what it measures"
	@echo "make results    measure again what results/ holds (over three hours; minutes on a large GPU)"
	@echo "make bench [PARTS=\"peers loop cost gpu views busy\"]   measure speed, beside other Mixers and alone (ten minutes)"
	@echo "make address [URL=https://github.com/you/fork]   write the repository's address into the notebooks"

# pyproject.toml is the one list of dependencies: when it changes, they are installed again.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1): set PYTHON=/path/to/python3.11"; exit 1; }
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
	@echo "Installing into $(VENV) (PyTorch is large: this takes minutes on a slow line)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

tutorial: $(READY)
	$(BIN)/python tools/notebooks.py tutorial

# Tests and notebooks together in two processes of one thread each: the networks are small. A file stays in one process,
# and the files keep the order that conftest.py gives them, the longest first.
# MIXER_PROGRESS=0 keeps progress bars out of the outputs that nbval compares.
PYTEST := MIXER_PROGRESS=0 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
NBVAL := --nbval --nbval-current-env --nbval-cell-timeout=600 --nbval-sanitize-with=tests/nbval_sanitize.cfg

test: $(READY)
	$(PYTEST) tests notebooks $(NBVAL) --durations=8

check: $(READY)
	$(PYTEST) tests -m "not slow" --durations=4

lab: $(READY)
	$(BIN)/python -m jupyterlab --config=tools/nbconvert_config.py notebooks/00_start_here.ipynb

site: $(READY)
	$(BIN)/python tools/website.py

solutions: $(READY)
	$(BIN)/python tools/notebooks.py solutions

figures: $(READY)
	$(BIN)/python figures/draw.py

save: $(READY)
	$(BIN)/python tools/notebooks.py save

save-imagenet: $(READY)
	$(BIN)/python tools/notebooks.py save-imagenet

results: $(READY)
	$(BIN)/python tools/measure.py

# Without timm or mlp-mixer-pytorch, what compares with them says that it is skipped.
$(BENCH): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]' && touch $@ || true

bench: $(BENCH)
	$(BIN)/python benchmarks/bench.py $(PARTS)

address: $(READY)
	$(BIN)/python tools/notebooks.py address $(URL)

clean:
	rm -rf build
