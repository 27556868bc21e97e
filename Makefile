# `make help` lists the targets.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# No usage statistics of the tools, no look-ups on the hub unless a parameter asks for a model there.
export DVC_NO_ANALYTICS := 1
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

.PHONY: setup
setup: .venv/installed ## make .venv with the locked dependencies

.venv/installed: requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	touch $@

.PHONY: repro
repro: check ## run the pipeline: only the stages whose inputs changed, JOBS of them at a time
	@python -m stages.recover
	@python -m stages.repro $(if $(JOBS),--jobs $(JOBS))
	@python -m stages.results
	@test -z "$$(git status --porcelain -- dvc.lock reports 2>/dev/null)" || { \
		echo; git status --short -- dvc.lock reports; \
		echo 'experiments are compared with the last commit: git add dvc.lock reports && git commit -m "a run"'; }

.PHONY: check
check: setup ## check the parameters, the data and the model before anything trains
	@python -m stages.check

.PHONY: sft-only
sft-only: check ## run what needs no preferences: preprocess, base, sft, their answers, and the report of these two
	@python -m stages.recover
	dvc repro predict@base predict@sft
	@# in seconds, so outside the graph, whose stages evaluate and report wait for the reward model and PPO
	python -m stages.evaluate --data data/processed --answers reports/answers --base models/base --sft models/sft \
		--to reports/evaluation --params params.yaml
	python -m stages.report --reports reports --page reports/index.html --summary reports/summary.md \
		--headline reports/metrics.json --environment reports/environment.json --plots reports/plots \
		--params params.yaml
	@python -m stages.results

.PHONY: watch
watch: setup ## follow the stages that train now: newest numbers, and when they will be done
	@python -m stages.watch

.PHONY: results
results: setup ## print the scores and what each stage cost
	@python -m stages.results

.PHONY: experiments
experiments: setup ## the experiments from this commit: what was changed in each, and what that changed
	@python -m stages.experiments

.PHONY: seeds
seeds: check ## train this setting with each of SEEDS="1 2 3 4 5", JOBS=1 at a time: mean, deviation, each seed's value
	@python -m stages.seeds $(or $(SEEDS),1 2 3 4 5) --jobs $(or $(JOBS),1) --to reports/seeds.md

.PHONY: controls
controls: check ## did PPO pay? best of n, DPO, PPO for length only and without a critic, judged by a second reward model
	@python -m stages.recover
	@# however it ends: with that file there, dvc would take the controls for stages of the pipeline
	trap 'rm -f controls/dvc.yaml' EXIT; trap 'exit 130' INT TERM; \
		cp controls/pipeline.yaml controls/dvc.yaml && dvc repro controls/dvc.yaml
	@cat reports/controls.md

.PHONY: compare
compare: setup ## runs side by side, REVS="main exp-a": beyond chance? Also compare.html, with all answers
	@python -m stages.compare $(or $(REVS),HEAD) --page compare.html

.PHONY: test
test: setup ## lint, types and tests; among these the smallest run of the whole graph, to the bytes that Git keeps
	ruff check .
	mypy
	python -m pytest --numprocesses 2 --dist loadfile

.PHONY: test-fast
test-fast: setup ## the tests that start no stage and no other program, in about a minute
	python -m pytest -m "not slow and not browser and not gpu and not real"

.PHONY: real-model
real-model: setup ## fetch SmolLM2-135M-Instruct, a real chat model (93 MB), into models/smollm2-135m
	@python -m stages.smollm2

.PHONY: test-real
test-real: real-model ## the whole pipeline on it, a quarter of an hour: resume and export included
	@python tests/real_model.py $(or $(WORK),$(shell mktemp -d))

.PHONY: fuzz
fuzz: setup ## 10,000 hostile data files, parameters and model folders: no traceback, no hang, no silent nonsense
	@python tests/fuzz/hostile.py --cases 10000

.PHONY: data
data: setup ## fetch the COVID dialogues
	@dvc --cd data/covid-dialogue pull --quiet || { \
		echo "error: the dialogues could not be fetched, see above; data/README.md tells how to copy them" >&2; exit 1; }

.PHONY: import
import: setup ## your own data, FROM=chats.jsonl [PREFERENCES=pairs.jsonl] [NAME=mydata] [FORMAT=…] [LIKE=a profile]
	@python -m stages.import_data $${FROM:+--from "$$FROM"} $${PREFERENCES:+--preferences "$$PREFERENCES"} \
		$${NAME:+--name "$$NAME"} $${FORMAT:+--format "$$FORMAT"} $${LIKE:+--like "$$LIKE"}

.PHONY: profile
profile: setup ## switch params.yaml to profiles/$(NAME).yaml, e.g. make profile NAME=covid-tiny
	@python -m stages.profile $(NAME)

.PHONY: reproduce
reproduce: setup ## run the smallest profile and compare its bytes with those in Git, on any x86-64; UPDATE=1 writes them
	@python -m stages.reproduce $(if $(UPDATE),--update)

.PHONY: verify
verify: setup ## run the committed pipeline in two fresh clones and compare the bytes
	@python -m stages.verify

.PHONY: bench
bench: setup .bench-venv/installed ## measure SFT, RM and predict against TRL 1.16, PPO against TRL 1.12 in an environment of its own
	@python -m benchmarks.stages
	@python -m benchmarks.ppo --trl-python .bench-venv/bin/python

.bench-venv/installed: benchmarks/requirements-trl.txt
	$(PYTHON) -m venv .bench-venv
	.bench-venv/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 --requirement $<
	touch $@

.PHONY: bench-llamafactory
bench-llamafactory: setup .bench-lf/installed ## measure SFT, RM and predict against LLaMA-Factory 0.9.5 in an environment of its own
	@python -m benchmarks.stages --llamafactory-python .bench-lf/bin/python

.bench-lf/installed: benchmarks/requirements-llamafactory.txt
	$(PYTHON) -m venv .bench-lf
	.bench-lf/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

.PHONY: chat
chat: setup ## talk with the trained model
	@python -m stages.chat

.PHONY: docs
docs: setup ## run every command that README.md and docs/ show, in a fresh clone, with the smallest profile
	@python tests/run_readme.py

.PHONY: lock
lock: ## write requirements.lock and requirements.hashes anew from the ranges in pyproject.toml
	rm -rf .venv
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --group dev --requirement pyproject.toml
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > requirements.lock
	grep -v '^torch==' requirements.lock > .torchless.partial
	$(BIN)/python -m pip install --quiet --dry-run --ignore-installed --no-deps --report .hashes.partial --requirement .torchless.partial
	$(BIN)/python -c "$$HASHED" < .hashes.partial > requirements.hashes
	rm .torchless.partial .hashes.partial

define HASHED
import json, sys
for each in json.load(sys.stdin)["install"]:
    about, hashes = each["metadata"], each["download_info"]["archive_info"]["hashes"]
    print("{name}=={version}".format(**about), "--hash=sha256:" + hashes["sha256"])
endef
export HASHED

.PHONY: publish-store
publish-store: setup ## put what this commit's run left into the folder TO=..., for any web host to serve
	@test -n "$(TO)" || { echo "error: say where to: make publish-store TO=../store" >&2; exit 1; }
	@dvc remote add --quiet --local --force publish "$(abspath $(TO))"
	dvc push --remote publish
	@dvc remote remove --quiet --local publish

.PHONY: export
export: setup ## merge the PPO stack into one folder, TO=...
	@python -m stages.export --model ppo --to $(or $(TO),ppo-model)

.PHONY: clean
clean: ## delete the work folder of unfinished runs
	rm -rf .work
