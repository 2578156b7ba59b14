# Every target sets up .venv first; README.md has the commands behind them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
CORES ?= all
# nproc takes OMP_NUM_THREADS for the number of cores.
TEST_PROCESSES ?= $(shell env -u OMP_NUM_THREADS nproc 2>/dev/null || echo 1)
STUDY ?= demo
CONFIG = $(if $(filter demo,$(STUDY)),config/config.yaml,config/studies/$(STUDY).yaml)
BEGUN = $(or $(wildcard results/$(STUDY)/study.json),$(CONFIG))

# The programs of .venv come first, also in the jobs that Snakemake starts.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
READY := .venv/requirements.installed

.PHONY: help table published test test-gorila lint status publish restore so-far videos bench clean

help:
	@echo "make table               train and compare: the demo study, ten to twenty-five minutes on two cores"
	@echo "make published           only the published table, recomputed: seconds, trains nothing"
	@echo "make test                lint and tests"
	@echo "make test-gorila         the tests of Gorila, with Ray"
	@echo "make status STUDY=demo   progress of every run; python -m analysis.status results/demo --follow goes on"
	@echo "make so-far STUDY=demo   table and report of the runs that are there so far"
	@echo "make publish STUDY=demo  audit, compare the tables, copy the small files to results/published/demo"
	@echo "make restore STUDY=atari5  take a published study up again: its runs go to results/atari5"
	@echo "make videos              the README's animations, from the traces of their published episodes"
	@echo "make bench               training speed, beside the machine's limit and others; over half an hour on an idle machine"
	@echo "make clean               remove .venv and caches; results stay"

$(READY): requirements.txt
	@"$(PYTHON)" -c 'import sys; assert (3, 11) <= sys.version_info < (3, 14), sys.version' \
		|| { echo "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	"$(PYTHON)" -m venv .venv
	.venv/bin/python -m pip install --disable-pip-version-check --quiet -r requirements.txt
	@touch $@

table: $(READY)
	snakemake --cores $(CORES)
	@echo; cat results/demo/tables/summary.md; echo "Report: results/demo/report.html"

published: $(READY)
	snakemake --cores 1 --forcerun published -- published
	@cat results/reference/table1.md

lint: $(READY)
	ruff check .
	ruff format --check .
	snakefmt --check .
	snakemake --lint

# One process a core, each from its end of the list: what files share is made once in each.
test: lint
	python -m pytest --numprocesses $(TEST_PROCESSES) --maxprocesses 8 --dist worksteal

# Ray is large and only one method needs it, so `make test` skips what needs it.
test-gorila: $(READY)
	python -m pip install --disable-pip-version-check --quiet -e '.[gorila]'
	python -m pytest tests/agents/test_parameter_server.py tests/agents/test_gorila.py tests/agents/test_gorila_on_ray.py

status: $(READY)
	python -m analysis.status results/$(STUDY)

# The same commands as the rules, without waiting for the runs that are not there: they are listed as missing.
# Without a lock, so that it works while the study trains: no file of a run is written. The study as it was
# begun, --config included, where there is its record.
so-far: $(READY)
	@test -e "$(BEGUN)" || { echo "STUDY=$(STUDY): there is no $(BEGUN); allowed: demo," \
		"$(basename $(notdir $(wildcard config/studies/*.yaml)))" >&2; exit 1; }
	snakemake --cores 1 --nolock --configfile $(BEGUN) \
		--config incomplete=list study=$(STUDY) -- results/$(STUDY)/study.json results/reference/table1.csv
	for step in collect aggregate tables plots report; do \
		python -m analysis.$$step --results results/$(STUDY); done
	@echo; cat results/$(STUDY)/tables/summary.md

publish: $(READY)
	python -m workflow.publish --study $(STUDY)

restore: $(READY)
	python -m workflow.restore --study $(STUDY)

PUBLISHED = results/published
videos: $(READY)
	python -m agents.video $(PUBLISHED)/value_based_pong/runs/double_dqn/pong/0/evaluation/10000000 \
		--episode 17 --frames 3600 --out results/videos/pong_double_dqn.gif
	python -m agents.video $(PUBLISHED)/atari5/runs/a2c/breakout/1/evaluation/10000000 \
		--episode 2 --frames 4500 --out results/videos/breakout_a2c.gif
	python -m agents.video $(PUBLISHED)/atari5/runs/actor_critic/double_dunk/0/evaluation/10000000 \
		--episode 13 --frames 1800 --out results/videos/double_dunk_actor_critic.gif

bench: $(READY)
	python -m benchmarks.speed

clean:
	rm -rf .venv .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
