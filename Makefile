# Needs Python 3.11 or later and make; everything else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb notebooks/solutions/*.ipynb))

.PHONY: demo test pytest nbval lab notebooks book check format constraints clean clean-cache
.NOTPARALLEL:  # nbval reads what pytest has run

demo: .venv/installed  ## run notebook 00 and write its page
	@$(BIN)/python -m vidhash_lab.runs notebooks/00_start_here.ipynb --folder build/demo
	@echo "Look at build/demo/00_start_here/00_start_here.html; go on with 'make lab'."

# Smoke runs of the notebooks, nbval on those runs and the browser share one small data set. A core
# runs one test at a time in one thread: more threads than cores would wait for each other. Kernels
# are forks of one that has imported everything.
test: export VIDHASH_LAB_CACHE = $(CURDIR)/build/cache
test: export OMP_NUM_THREADS = 1
test: .venv/installed check  ## everything that CI runs
	rm -rf build/smoke
	$(BIN)/python tests/warm_kernels.py $(MAKE) --no-print-directory pytest nbval
	@test -x /usr/bin/chromium || echo "BROWSER TESTS SKIPPED: no /usr/bin/chromium"

pytest:
	$(BIN)/pytest -n auto --dist worksteal --durations 25

nbval:
	$(BIN)/pytest -n auto --dist loadfile --nbval-lax --nbval-cell-timeout 300 build/smoke

lab: .venv/installed  ## open the notebooks
	$(BIN)/jupyter lab notebooks

notebooks: .venv/installed  ## run every notebook in full; refresh outputs and figures
	$(BIN)/python -m vidhash_lab.runs $(NOTEBOOKS) --refresh
	$(BIN)/nbstripout --keep-output --keep-count --keep-id $(NOTEBOOKS)

book: .venv/installed  ## the site, from the committed notebooks, into build/book
	$(BIN)/python book/build.py
	@echo "Open build/book/index.html; it needs no server and no network."

check: .venv/installed  ## lint and formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: .venv/installed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

constraints: .venv/installed  ## pin what is installed now
	{ sed -n '/^#/p' constraints.txt; $(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//'; } > constraints.new
	mv constraints.new constraints.txt

clean-cache: .venv/installed  ## free what the kit keeps in its cache, and show what was there
	$(BIN)/vidhash cache
	$(BIN)/vidhash cache --clean

clean:
	rm -rf build .venv *.egg-info

# The pins first, so that nothing that torch could drag in is ever resolved without them.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
