# `make explore` and `make test` do everything on a fresh machine; .venv is made from pyproject.toml on first use.
PYTHON ?= python3
PHOTO ?= worldwarp/photos/pagoda.jpg
OUT ?= worlds/pagoda
RUN := .venv/bin
export OMP_WAIT_POLICY ?= passive
export PYTHONWARNINGS ?= ignore::SyntaxWarning

.PHONY: explore test lint bench clean

explore: .venv/ready
	$(RUN)/worldwarp explore image=$(PHOTO) path=out_and_back:distance=0.5 out=$(OUT) resume=auto
	$(RUN)/worldwarp export $(OUT) formats=[gaussians_ply,glb,mp4]

test: .venv/ready
	$(RUN)/python -m pytest -n 2

lint: .venv/ready
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/lint-imports
	$(RUN)/pyright

bench: .venv/ready
	@for name in $$(ls benchmarks/*.py | xargs -n1 basename | sed 's/\.py$$//' | grep -v __init__); do \
		echo "== $$name"; $(RUN)/python -m benchmarks.$$name || exit 1; done

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(RUN)/python -m pip install --quiet --upgrade pip
	@# A local CPU build of torch is taken where pip is pointed at one; elsewhere the index decides.
	$(RUN)/python -m pip install --quiet "torch>=2.7,<2.14"
	$(RUN)/python -m pip install --quiet --editable ".[dev]"
	touch .venv/ready

clean:
	rm -rf .venv build dist
