# make demo   the whole path on real photographs, a few minutes of training included: runs/demo/before_after.png
# make app    pretrained/generic on a page in the browser; MODELS="mine=runs/mine/export …" for others
# make test   the tests; those of keyed exports in TensorFlow 2.21 after make .venv-tf221/installed
# make test-fast   those that train nothing and start no server, browser or cluster
# Each finds a fitting Python, makes .venv and installs into it first.

PYTHON := $(shell for v in 3.11 3.10 3.9; do \
	p=$$(command -v python$$v) && "$$p" -c 'import sys, venv; sys.exit(sys.version_info[:2] != tuple(map(int, "'$$v'".split("."))))' \
	2>/dev/null && echo "$$p" && break; done)
VENV := .venv
BIN := $(VENV)/bin
COCO ?=
MODELS ?= generic=pretrained/generic keyed=runs/app/keyed

.PHONY: demo app test test-fast lint format benchmarks constraints clean

demo: $(VENV)/installed
	@$(BIN)/python -m examples.demo --coco="$(COCO)" --out=runs/demo

app: $(VENV)/installed
	@test -d runs/app || $(BIN)/python -m preprocessing.example_photos --out=runs/app
	@test -d runs/app/keyed/1 || $(BIN)/python -m serving.key --canvas=runs/app/mark.png --export_dir=runs/app/keyed
	@exec $(BIN)/python -m serving.app $(MODELS:%=--export=%)

test: $(VENV)/installed
	@$(BIN)/python -m pytest -q -n 2 --dist=loadfile

# Under three minutes: no training, no browser, no server, no cluster.
test-fast: $(VENV)/installed
	@$(BIN)/python -m pytest -q -n 2 --dist=loadfile -m "not slow and not browser and not cluster and not tf221"

lint: $(VENV)/installed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(VENV)/installed
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

benchmarks: $(VENV)/installed
	@for name in conversion input_pipeline canvases corruption models training quality generic keyed keyed.loading estimates serving serving_load scale workers; do $(BIN)/python -m benchmarks.$$name || failed="$$failed $$name"; done; \
	test -z "$$failed" || { echo "failed:$$failed" >&2; exit 1; }

$(VENV)/installed: setup.py constraints.txt
	@if [ -z "$(PYTHON)" ]; then \
		echo "error: TensorFlow 2.15 needs Python 3.11, 3.10 or 3.9 and none was found; install one (Debian, Ubuntu: apt install python3.11 python3.11-venv)" >&2; exit 1; fi
	@echo "Installing into $(VENV) with $(PYTHON) (once; about 2 GB)"
	@"$(PYTHON)" -m venv $(VENV) || { echo "error: $(PYTHON) cannot make a virtual environment; install its venv module (Debian, Ubuntu: apt install $$(basename $(PYTHON))-venv)" >&2; exit 1; }
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[test]"
	@touch $@

# TensorFlow as people install it today, for exports alone; it needs nothing of ours.
.venv-tf221/installed:
	@"$(PYTHON)" -m venv .venv-tf221
	@.venv-tf221/bin/pip install --quiet --disable-pip-version-check tensorflow==2.21.0
	@touch $@

# Renews constraints.txt from the newest releases that setup.py allows; needs Python 3.10 and 3.11, and minutes.
constraints:
	@python3 .ci/constraints.py > constraints.new && mv constraints.new constraints.txt || { rm -f constraints.new; false; }

clean:
	rm -rf $(VENV) .venv-tf221 runs build *.egg-info
