# make run and make test work on a fresh clone; everything is installed into .venv on first use.
PY ?= python3
V := .venv
B := $(V)/bin
NOTEBOOKS := $(sort $(wildcard notebooks/[0-9]*.ipynb))
APP ?= notebooks/06_inspect_detections.ipynb
# Loopback only, behind a token; requests that name another host are refused (an empty value is false).
APP_OPTIONS := --token --Voila.ip=127.0.0.1 --Voila.tornado_settings=allow_remote_access=
ALL_NOTEBOOKS := $(NOTEBOOKS) $(sort $(wildcard notebooks/studies/*.ipynb))

.PHONY: help setup run run-full test fuzz docs lab app lint format clean

help:
	@echo "make run       execute the notebooks into build/ (small runs, minutes)"
	@echo "make run-full  the same with notebooks/params/*.yaml (full size)"
	@echo "make test      the whole test suite, notebooks included"
	@echo "make fuzz      10,000 damaged files for every reader (a quarter of an hour)"
	@echo "make docs      the documentation site, build/docs/index.html (shows outputs of notebooks that make run made)"
	@echo "make lab       JupyterLab"
	@echo "make app       look at detections and correct them: notebook 06 as a page without code (APP=... another one,"
	@echo "               DEBUG=1 with tracebacks)"
	@echo "make lint      what continuous integration checks;  make format  repairs it"
	@echo "make clean     remove build/ and caches (keeps .venv, data/ and figures/published/)"

setup: $(V)/.stamp

$(V)/.stamp: pyproject.toml constraints.txt
	@$(PY) -c 'import sys; sys.exit("evlib needs Python 3.11 or newer; try: make PY=python3.11" if sys.version_info < (3, 11) else 0)'
	test -x $(B)/python || $(PY) -m venv $(V)
	$(B)/python -m pip install -q --upgrade pip
	$(B)/python -m pip install -q -c constraints.txt -e ".[dev]"
	@touch $@

run: $(V)/.stamp
	$(B)/evlib run $(NOTEBOOKS)

run-full: $(V)/.stamp
	$(B)/evlib run --params notebooks/params $(NOTEBOOKS)

test: $(V)/.stamp
	OMP_NUM_THREADS=1 $(B)/python -m pytest -q -n 2 --dist loadscope tests evlib
ifneq ($(strip $(ALL_NOTEBOOKS)),)
	OMP_NUM_THREADS=1 $(B)/python -m pytest -q -n 2 --dist loadscope -p no:cacheprovider --timeout 1500 \
		--nbval-lax --nbval-current-env --nbval-cell-timeout 1200 $(ALL_NOTEBOOKS)
endif

fuzz: $(V)/.stamp
	$(B)/python tools/fuzz.py

docs: $(V)/.stamp
	$(B)/python -m sphinx -q -W --keep-going -b html -c docs . build/docs

lab: $(V)/.stamp
	$(B)/python -m jupyter lab notebooks

app: $(V)/.stamp
	$(B)/python -m voila $(APP_OPTIONS) $(if $(DEBUG),--show_tracebacks=True) $(APP)

lint: $(V)/.stamp
	$(B)/ruff check .
	$(B)/ruff format --check .
	$(B)/python -m mypy
ifneq ($(strip $(ALL_NOTEBOOKS)),)
	$(B)/nbstripout --keep-id --verify $(ALL_NOTEBOOKS)
endif

format: $(V)/.stamp
	$(B)/ruff check --fix .
	$(B)/ruff format .
ifneq ($(strip $(ALL_NOTEBOOKS)),)
	$(B)/nbstripout --keep-id $(ALL_NOTEBOOKS)
endif

clean:
	rm -rf build runs .pytest_cache .ruff_cache .hypothesis
	find evlib tests notebooks -name __pycache__ -prune -exec rm -rf {} +
