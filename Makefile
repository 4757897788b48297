# `make explore` and `make test` do everything on a fresh machine; .venv is made from pyproject.toml on first use.
PYTHON ?= python3
PHOTO ?= worldwarp/photos/pagoda.jpg
WALK ?= out_and_back
OUT ?= worlds/pagoda
DATA ?= runs/data
CLIPS ?= 3000
RUN := $(if $(filter Windows_NT,$(OS)),.venv/Scripts,.venv/bin)
export OMP_WAIT_POLICY ?= passive
export PYTHONWARNINGS ?= ignore::SyntaxWarning

.PHONY: explore test lint docs bench data clean

explore: .venv/ready
	@if [ -f $(OUT)/world.json ]; then $(RUN)/worldwarp explore $(OUT); \
	else $(RUN)/worldwarp explore image=$(PHOTO) path=$(WALK) frames=49 out=$(OUT); fi
	$(RUN)/worldwarp export $(OUT) formats=gaussians_ply,html,mp4

# A stolen test leaves its module whole where possible, so that worlds of a module are made once. Without bytecode, the
# workers and each program that a test starts would compile all sources anew.
test: .venv/ready
	PYTHONDONTWRITEBYTECODE= $(RUN)/python -m pytest -n 2 --dist worksteal

lint: .venv/ready
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/lint-imports
	$(RUN)/pyright

docs: .venv-docs/ready
	.venv-docs/$(notdir $(RUN))/zensical build --strict

bench: .venv/ready $(if $(wildcard $(DATA)/manifest.json),.venv/train-data)
	$(RUN)/python -m benchmarks.speed.rasterizer
	$(RUN)/python -m benchmarks.speed.explore
	$(RUN)/python -m benchmarks.cache.integration
	$(RUN)/python -m benchmarks.reliability.kill_resume --kills 10
	$(RUN)/python -m benchmarks.cache.held_out_views --quick
	$(RUN)/python -m benchmarks.cache.depth_drift
	$(RUN)/python -m benchmarks.reliability.calibration
	$(RUN)/python -m benchmarks.cache.paging --millions 10
	@if [ -f $(DATA)/manifest.json ]; then \
		$(RUN)/python -m benchmarks.quality.depth_maps $(DATA) && $(RUN)/python -m benchmarks.quality.generator_quality $(DATA) && $(RUN)/python -m benchmarks.quality.generator_rollout $(DATA); \
	else echo "generator benchmarks need held-out clips: make data (see docs/training.md)"; fi

data: .venv/train-data
	$(RUN)/worldwarp render-data out=$(DATA) assets=runs/assets clips=$(CLIPS)
	$(RUN)/worldwarp render-data out=$(DATA) assets=runs/assets plan=towns clips=360
	$(RUN)/worldwarp render-data out=$(DATA) assets=runs/assets plan=still-lifes clips=700
	$(RUN)/worldwarp render-data out=$(DATA) assets=runs/assets plan=panoramas clips=240

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(RUN)/python -m pip install --quiet --upgrade pip
	@# A local CPU build of torch is taken where pip is pointed at one; elsewhere the index decides.
	$(RUN)/python -m pip install --quiet "torch>=2.7,<2.14"
	$(RUN)/python -m pip install --quiet --editable ".[dev]"
	touch .venv/ready

.venv-docs/ready: pyproject.toml
	$(PYTHON) -m venv .venv-docs
	.venv-docs/$(notdir $(RUN))/python -m pip install --quiet "zensical>=0.0.70" "mkdocstrings-python>=2.0"
	touch $@

.venv/train-data: .venv/ready
	$(RUN)/python -m pip install --quiet --editable ".[train-data]"
	touch $@

clean:
	rm -rf .venv .venv-docs build dist .cache
