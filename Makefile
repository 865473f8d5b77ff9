# EmoSym. `make` lists what can be done. Each target first makes what it needs.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

VENV ?= .venv## folder of the virtual environment
STAMP := $(VENV)/.emosym-setup
MADE_WITH := $(shell cat $(STAMP) 2>/dev/null)
PYTHON ?= python3## interpreter that makes the environment (3.11 or newer)
TORCH ?= torch==2.13.0## PyTorch to install, with pip options: "torch==2.13.0 --index-url URL"
NPROC ?= 1## ranks (processes) on this machine
HOSTFILE ?=## DeepSpeed hostfile ("worker-1 slots=8") for several machines
CONFIG ?=## preset of train/presets (each train target has its own default)
DATA ?=## dataset folder or manifest
RUN ?=## run folder: weights, logs, reports
CHECKPOINT ?=## checkpoint that resume continues from, as step-0000020; default: the last one
OTHER ?=## run folder or report.json that eval-compare compares with RUN=
OVERRIDES ?=## configuration changes of a run: "seed=1 stages.0.steps=60"
SHORT ?=## 1: a look of about two minutes at a preset of a train target
OPTIONS ?=## more options of an eval target: "--prompts 4 --images 1"; see python -m eval NAME --help
MODEL ?= emosym-tiny## name in the model zoo, or a checkpoint folder
BANK ?=## memory bank folder
IMAGES ?=## image files or folders
QUERY ?=## image, affect ('valence=1 arousal=-2') or words to search the bank for
COUNT ?= 1000## images to draw
SEED ?= 0## seed of the drawing
PART ?= all## part of study-symbiosis: understander, gradient or tokens
PATCHES ?= 24## side of a picture of bench-grpo in patches: 24 gives 144 visual tokens, 8 gives 16

# The torch build of an environment stays the same until TORCH names another one.
ifeq ($(origin TORCH),file)
TORCH := $(or $(MADE_WITH),$(TORCH))
endif

PY := $(VENV)/bin/python
# deepspeed and emosym must be found by name.
export PATH := $(abspath $(VENV)/bin):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

ifeq ($(shell nvidia-smi -L 2>/dev/null),)
export DS_ACCELERATOR ?= cpu
endif
export OMP_NUM_THREADS ?= $(shell cores=$$(getconf _NPROCESSORS_ONLN); echo $$(( cores > $(NPROC) ? cores / $(NPROC) : 1 )))

ifeq ($(shell [[ "$(NPROC)" =~ ^[1-9][0-9]*$$ ]] && echo good),)
$(error NPROC is $(NPROC); expected a positive number of ranks)
endif

# One rank needs no launcher, and the ranks of one machine need no more than ours. Several machines
# go through DeepSpeed's, on a free port, so that two jobs never meet.
ifneq ($(HOSTFILE),)
FREE_PORT = $$($(PY) -c 'from train.distributed.launcher import free_port; print(free_port())')
TRAIN = deepspeed --log_level critical --hostfile "$(HOSTFILE)" --master_port $(FREE_PORT) \
	--no_local_rank --module train
else ifeq ($(NPROC),1)
TRAIN = $(PY) -m train
else
TRAIN = $(PY) -m train.distributed.launcher $(NPROC)
endif

# $(call fail,what;fix) leaves with the exit code of every user error.
fail = { echo "error: $(1)" >&2; exit 2; }
# A target that depends on given-NAME does not start without the variable NAME.
given-%:
	@[ -n "$($*)" ] || $(call fail,$* is missing; say make $(MAKECMDGOALS) $*=...)

.PHONY: no-overrides
no-overrides:
	@[ -z "$(OVERRIDES)" ] || $(call fail,$(MAKECMDGOALS) takes no OVERRIDES; they change training runs only)

# DeepSpeed would take a missing hostfile for "this machine only".
.PHONY: given-hostfile
given-hostfile:
	@[ -z "$(HOSTFILE)" ] || [ -f "$(HOSTFILE)" ] || \
		$(call fail,no such hostfile: $(HOSTFILE); write a line for each machine: NAME slots=GPUS)

.PHONY: help
help: ## list the targets and the variables
	@echo 'make TARGET [VARIABLE=value ...]'; echo; echo 'Targets'
	@sed -nE 's/^([a-z][a-z-]*):.*## (.*)/  \1\t\2/p' Makefile | expand -t 22
	@echo; echo 'Variables'
	@sed -nE 's/^([A-Z]+) \?=([^#]*)## (.*)/  \1\t\3 [\2]/p' Makefile | sed -E 's/ \[ *\]$$//; s/\[ /[/' | expand -t 18

.PHONY: setup
setup: $(STAMP) ## make the virtual environment; again when setup.cfg, constraints.txt or TORCH change

ifneq ($(TORCH),$(MADE_WITH))
$(STAMP): FORCE
endif

# Of what pip says: what it downloads with its size, and the long last step.
PIP_LINES = sed -nuE 's/^ *(Downloading [^ ]+ \([0-9.]+ [MG]B\)).*/    \1/p; s/^(Installing collected packages).*/    \1/p'

# The stamp is written last: an environment without one is half made, and is made anew.
$(STAMP): setup.cfg pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || \
		$(call fail,no such Python: $(PYTHON); install Python 3.11 or newer or give PYTHON=)
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		$(call fail,$(PYTHON) is $$("$(PYTHON)" -V); expected 3.11 or newer; give PYTHON=python3.11)
	@if [ ! -e "$@" ] && [ -e "$(VENV)" ]; then \
		[ -e "$(VENV)/.emosym-begun" ] || \
			$(call fail,$(VENV) was not made by make setup; remove it or give another VENV=); \
		rm -rf "$(VENV)"; fi
	@rm -f "$@"; mkdir -p "$(VENV)"; touch "$(VENV)/.emosym-begun"
	@echo "1/3 making the environment $(VENV)"
	"$(PYTHON)" -m venv "$(VENV)"
	@grep -v '^torch==' constraints.txt > "$(VENV)/constraints.txt"
	@echo "2/3 installing PyTorch: 0.2 GB to download for a CPU build, 3 GB for a CUDA build"
	$(PY) -m pip install --progress-bar off --constraint "$(VENV)/constraints.txt" $(TORCH) | $(PIP_LINES)
	@echo "3/3 installing about 100 packages, 0.5 GB to download: a few minutes"
	$(PY) -m pip install --progress-bar off --constraint "$(VENV)/constraints.txt" --editable '.[dev]' | $(PIP_LINES)
	@echo "done: $(VENV)"
	@echo '$(TORCH)' > "$@.new"; mv "$@.new" "$@"

.PHONY: test
test: setup ## run every test, one process a core (at most 8)
	OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses auto --maxprocesses 8

.PHONY: lint
lint: setup ## check style, format and types
	ruff check .
	ruff format --check .
	mypy

.PHONY: demo
demo: setup ## the whole loop in minutes: train all phases on a drawn world, report before and after
	$(PY) -m train run train/presets/demo.yaml --run "$(or $(RUN),runs/demo)" $(SHORT_OPTION)$(OVERRIDES)

.PHONY: tiny-base
tiny-base: given-hostfile setup ## train the weights that the model zoo ships, and install them
	@$(TRAIN) run train/presets/tiny/tiny-base.yaml --run runs/tiny-base $(OVERRIDES)
	$(PY) -m model_zoo install runs/tiny-base --command "make tiny-base$(if $(filter-out 1,$(NPROC)), NPROC=$(NPROC))$(if $(OVERRIDES), OVERRIDES='$(OVERRIDES)')"

.PHONY: world
world: given-DATA no-overrides setup ## draw AffectWorld into DATA= (COUNT= images, SEED=)
	emosym data world "$(DATA)" --count $(COUNT) --seed $(SEED)

SHORT_OPTION = $(if $(filter-out 0,$(SHORT)),--short )
TRAIN_OPTIONS = $(if $(DATA),--data "$(DATA)") $(if $(RUN),--run "$(RUN)") $(SHORT_OPTION)$(OVERRIDES)

.PHONY: train-compress train-instruct train-verify train-reinforce train-joint
train-compress: CONFIG := $(or $(CONFIG),train/presets/tiny/compress-tiny.yaml)
train-instruct: CONFIG := $(or $(CONFIG),train/presets/tiny/eemo-logic-stage1-tiny.yaml)
train-verify: CONFIG := $(or $(CONFIG),train/presets/tiny/verify-tiny.yaml)
train-reinforce: CONFIG := $(or $(CONFIG),train/presets/tiny/reinforce-tiny.yaml)
train-joint: CONFIG := $(or $(CONFIG),train/presets/tiny/joint-tiny.yaml)
train-compress: given-hostfile setup ## step 1: latent reasoning tokens absorb knowledge
	@$(TRAIN) run "$(CONFIG)" $(TRAIN_OPTIONS)
train-instruct: given-hostfile setup ## answer questions about emotion in words
	@$(TRAIN) run "$(CONFIG)" $(TRAIN_OPTIONS)
train-verify: given-hostfile setup ## step 2: reinforcement with verifiable emotion rewards
	@$(TRAIN) run "$(CONFIG)" $(TRAIN_OPTIONS)
train-reinforce: given-hostfile setup ## image RL: the generator learns from its judges
	@$(TRAIN) run "$(CONFIG)" $(TRAIN_OPTIONS)
train-joint: given-hostfile setup ## all steps: understand, verify, generate, remember
	@$(TRAIN) run "$(CONFIG)" $(TRAIN_OPTIONS)

.PHONY: resume
resume: given-RUN given-hostfile setup ## continue RUN= from its last checkpoint, or from CHECKPOINT=
	@$(TRAIN) resume "$(RUN)" $(if $(CHECKPOINT),--checkpoint "$(CHECKPOINT)") $(OVERRIDES)

.PHONY: eval
eval: given-DATA given-RUN no-overrides setup ## score MODEL= on the test split of DATA=, report into RUN=
	$(PY) -m eval run "$(MODEL)" "$(DATA)" --out "$(RUN)" $(OPTIONS)

.PHONY: bench-reinforce
bench-reinforce: setup ## an image RL step, each algorithm and Flow-GRPO as published side by side
	$(PY) -m benchmarks.reinforce

.PHONY: eval-plane
eval-plane: no-overrides setup ## score MODEL= at 25 points of valence and arousal; floor, diversity, continuity
	$(PY) -m eval plane "$(MODEL)" $(OPTIONS)

.PHONY: eval-influence
eval-influence: given-DATA no-overrides setup ## score MODEL='s images with one source of their condition exchanged at a time
	$(PY) -m eval influence "$(MODEL)" "$(DATA)" $(OPTIONS)

.PHONY: eval-refine
eval-refine: no-overrides setup ## score MODEL='s refining against the best of as many images
	$(PY) -m eval refining "$(MODEL)" $(OPTIONS)

.PHONY: eval-compare
eval-compare: given-RUN given-OTHER no-overrides setup ## show the reports of two runs, RUN= and OTHER=, beside each other
	$(PY) -m eval compare "$(RUN)" "$(OTHER)" $(OPTIONS)

.PHONY: subject-classifier
subject-classifier: no-overrides setup ## train the subject classifier that eval-plane uses, and install it
	$(PY) -m eval subject-classifier

.PHONY: attribute-reader
attribute-reader: no-overrides setup ## train the reader of what an image shows (hues, setting, weather, place, size), and install it
	$(PY) -m eval attribute-reader

.PHONY: bench-grpo
bench-grpo: setup ## a GRPO step, ours and TRL's GRPOTrainer side by side
	$(PY) -m pip install --quiet --constraint "$(VENV)/constraints.txt" --editable '.[bench]'
	$(PY) -m benchmarks.grpo --patches $(PATCHES)

.PHONY: bench-bank
bench-bank: no-overrides setup ## the memory bank beside FAISS, hnswlib and LanceDB (COUNT= entries, 200000)
	$(PY) -m pip install --quiet --constraint "$(VENV)/constraints.txt" --editable '.[bench]'
	$(PY) -m benchmarks.bank $(if $(filter-out file,$(origin COUNT)),--count $(COUNT))

.PHONY: study-memory
study-memory: no-overrides setup ## does a memory bank help where labels are few? 5 seeds, about an hour
	$(PY) -m benchmarks.memory_study --out "$(or $(RUN),runs/memory-study)"

.PHONY: study-reinforce
study-reinforce: no-overrides setup ## which algorithm of reinforce learns most in the same processor time?
	$(PY) -m benchmarks.reinforce_study --out "$(or $(RUN),runs/reinforce-study)"

.PHONY: study-symbiosis
study-symbiosis: no-overrides setup ## do understanding and drawing help each other? all parts, or PART=; 3 seeds
	$(PY) -m benchmarks.symbiosis_study --out "$(or $(RUN),runs/symbiosis-study)" --part "$(PART)"

.PHONY: bank-add
bank-add: given-BANK given-IMAGES no-overrides setup ## add IMAGES= to the memory bank BANK=
	emosym bank add "$(BANK)" $(IMAGES) --model "$(MODEL)"

.PHONY: bank-search
bank-search: given-BANK given-QUERY no-overrides setup ## find what is nearest to QUERY= in the memory bank BANK=
	emosym bank search "$(BANK)" "$(QUERY)" --model "$(MODEL)"

.PHONY: doctor
doctor: setup ## check this machine and this installation
	emosym doctor

.PHONY: clean
clean: ## remove caches and build products; keeps the environment, runs and data
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

.PHONY: FORCE
FORCE:
