# The front door. `make` prints what can be made and the variables with their present values. Variables count when they
# are given on the command line of make; those of the environment are not read.

COMPETITION  = $(or $(shell cat .competition 2>/dev/null),demo)#     competitions/<name>.yaml (make use changes it)
ENSEMBLE     =#          ensembles/<name>.yaml (empty: the competition's own)
MODEL        =#          an entry of models.yaml (empty: all members of the ensemble)
PREPROCESS   =#          preprocess/<name>.yaml (empty: the model's own)
DATA         =#          another image folder or glob for the competition
DEVICE       = auto#     auto, cpu, cuda, cuda:1
DTYPE        = auto#     auto (fp16 on a GPU, bf16 on a CPU that has it, else fp32), fp32, fp16, bf16
COMPILE      =#          1: compile image towers by torch.compile, which takes minutes and pays in long runs
BATCH        =#          images per forward pass (empty: 256 on a GPU, else 64)
WORKERS      =#          threads or processes that decode (empty: one per core)
SHARD        = 2048#     images per cache file: what an interrupted run can lose
CACHE        =#          folder or URL (s3://...) for what is computed, shared by machines (empty: cache)
LAUNCH       =#          start several processes, e.g. "accelerate launch --num_processes 4", or ray
RAY          =#          with LAUNCH=ray: auto, or a cluster's address (empty: one on this machine)
PYTHON       =#          an interpreter to use as it is, e.g. python3 (empty: make .venv)

VARIABLES := COMPETITION ENSEMBLE MODEL PREPROCESS DATA DEVICE DTYPE COMPILE BATCH WORKERS SHARD CACHE LAUNCH RAY PYTHON
unexport $(VARIABLES)

# every value reaches the shell in single quotes, whatever it contains
quote = '$(subst ','\'',$(1))'

# a misspelled variable would be ignored without a word, and another competition submitted
OTHERS := N A B UPLOAD PUBLIC PRIVATE FILE DRY IMAGES CLASSES LABELS TOP TEMPLATE OUT MODELS DATASETS DATASET PROMPTS \
          POOLINGS POOLING SPLIT BENCHMARK UNLABELLED TEST_LABELS RECIPE OVERWRITE METHODS SHOTS SEEDS UPGRADE VENV TEXT SAMPLE UNDO PORT
given = $(if $(filter command,$(firstword $(origin $(1)))),$(1))
UNKNOWN := $(strip $(foreach v,$(filter-out $(VARIABLES) $(OTHERS),$(.VARIABLES)),$(call given,$(v))))
nearest = $(shell python3 -c 'import difflib, sys; print(*difflib.get_close_matches(sys.argv[1], sys.argv[2:], 1))' \
                  $(call quote,$(1)) $(2) 2>/dev/null)
unknown = $(error no $(1) '$(2)'. $(or $(addprefix Did you mean ',$(addsuffix '?,$(call nearest,$(2),$(3)))),Known: $(3)))
$(if $(UNKNOWN),$(call unknown,variable,$(firstword $(UNKNOWN)),$(sort $(VARIABLES) $(OTHERS))))

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

# 1 or nothing; what a flag may be is said in pipeline/cli/_options.py (ON, OFF)
flag = $(if $(call given,$(1)),$(if $(filter 1 yes true,$($(1))),1,$(if $(filter-out 0 no false,$($(1))),\
         $(error $(1)=$($(1)): a flag is 1 or 0))))

comma := ,# within an argument of $(call ...), where a comma itself would end it
need = $(if $(and $(call given,$(1)),$($(1))),,$(error give $(1)=..., e.g. make $(MAKECMDGOALS) $(2)))

VENV := .venv
DEV_READY = $(addprefix $(VENV)/.installed-,report data parquet store ray train upscale kaggle workbench dev)
ifeq ($(PYTHON),)
  RUN := $(VENV)/bin/python
  READY := $(VENV)/.installed $(if $(filter ray,$(LAUNCH)),$(VENV)/.installed-ray)
  REPORT_READY := $(VENV)/.installed-report
  TRAIN_READY := $(VENV)/.installed-report $(VENV)/.installed-train
  KAGGLE_READY := $(VENV)/.installed-kaggle
  WORKBENCH_READY := $(VENV)/.installed-workbench
  PARQUET_READY := $(VENV)/.installed-parquet
else
  RUN := $(PYTHON)
  READY := environment
  REPORT_READY := environment
  TRAIN_READY := environment
  KAGGLE_READY := environment
  WORKBENCH_READY := environment
  PARQUET_READY := environment
endif

# a launcher is looked for beside the interpreter first; accelerate needs pipeline.cli._launch to start at all
PIPELINE = @$(if $(filter-out ray,$(LAUNCH)),PATH="$(dir $(RUN)):$$PATH" $(patsubst accelerate,$(RUN) -m pipeline.cli._launch,$(LAUNCH)),$(RUN)) -m pipeline
# what was given goes to the verb as it is, which says so if it does not use it
OWN := LAUNCH RAY PYTHON VENV UPGRADE
GIVEN = $(foreach v,$(filter-out $(OWN),$(VARIABLES) $(OTHERS)),$(if $(call given,$(v)),$(call quote,$(v)=$($(v))))) \
  $(if $(filter ray,$(LAUNCH)),$(call quote,RAY=$(or $(RAY),local)),$(if $(call given,RAY),$(error RAY= goes with LAUNCH=ray)))

##@ The chain (each stage makes what it needs from the stages above)

.PHONY: preprocess
preprocess: $(READY) ## pixels of PREPROCESS, or of all recipes the ensemble needs
	$(PIPELINE) preprocess $(GIVEN)

.PHONY: infer
infer: $(READY) ## prompt probabilities of MODEL, or of all members of the ensemble
	$(PIPELINE) infer $(GIVEN)

.PHONY: ensemble
ensemble: $(READY) ## weighted blend of the members
	$(PIPELINE) ensemble $(GIVEN)

.PHONY: threshold
threshold: $(READY) ## low probabilities of the blend become zero
	$(PIPELINE) threshold $(GIVEN)

.PHONY: submit
submit: $(READY) $(if $(call flag,UPLOAD),$(KAGGLE_READY)) ## pool, check and write submissions/COMPETITION/NNN-ENSEMBLE.csv [UPLOAD=1]
	$(PIPELINE) submit $(GIVEN)

.PHONY: plan
plan: $(READY) ## what submit would reuse, compute and write, and about how long it would take
	$(PIPELINE) plan $(GIVEN)

.PHONY: pack
pack: $(READY) ## one zip to encode what is missing on another machine [IMAGES=1 includes the images, PROMPTS=all all prompts]
	$(PIPELINE) pack $(GIVEN)

.PHONY: unpack
unpack: $(READY) ## check what a pack's run left, and merge it into the cache: FILE=packs/name.features
	$(call need,FILE,FILE=packs/name.features)
	$(PIPELINE) unpack $(GIVEN)

##@ Submissions

.PHONY: advise
advise: $(READY) ## before a submission is spent: disagreement, prompts, images to look at; can the board see it?
	$(PIPELINE) advise $(GIVEN)

.PHONY: workbench
workbench: $(WORKBENCH_READY) ## edit prompts and weights in the browser and see which images change [DATASET= SPLIT= PORT=]
	$(PIPELINE) workbench $(GIVEN)

.PHONY: log
log: $(READY) ## the submissions so far
	$(PIPELINE) log $(GIVEN)

.PHONY: upload
upload: $(KAGGLE_READY) ## send a submission (N=12, else the newest) to the competition's service, and wait for its score
	$(PIPELINE) upload $(GIVEN)

.PHONY: scores
scores: $(KAGGLE_READY) ## fetch the scores of all that was uploaded
	$(PIPELINE) scores $(GIVEN)

.PHONY: score
score: $(READY) ## record what the leaderboard said: N=12 PUBLIC=0.92024 PRIVATE=0.91111
	$(call need,N,N=12 PUBLIC=0.92024)
	$(PIPELINE) score $(GIVEN)

.PHONY: note
note: $(READY) ## something to remember about a submission, shown in the log: N=12 TEXT="other prompts for ice" (TEXT= removes it)
	$(call need,N,N=12 TEXT="...")
	$(PIPELINE) note $(GIVEN)

.PHONY: diff
diff: $(READY) ## which labels changed, with the images, and can the board see it: A=11 B=12, else the newest two
	$(PIPELINE) diff $(GIVEN)

.PHONY: sheet
sheet: $(READY) ## contact sheet of a submission, a row per predicted class: N=12, else of the newest
	$(PIPELINE) sheet $(GIVEN)

.PHONY: report
report: $(REPORT_READY) ## one HTML page about a submission (N=12, else the newest), ENSEMBLE, or BENCHMARK as below
	$(PIPELINE) report $(GIVEN)

##@ Labelled data

.PHONY: benchmark
benchmark: $(READY) ## models on data sets: MODELS="a b" DATASETS="x y" [PROMPTS= POOLINGS= SPLIT=], or BENCHMARK=name
	$(if $(call given,BENCHMARK),,$(call need,MODELS,MODELS="openai-b32" DATASETS="cub dtd")$(call need,DATASETS,MODELS="openai-b32" DATASETS="cub dtd"))
	$(PIPELINE) benchmark $(GIVEN)

.PHONY: prompts-rank
prompts-rank: $(READY) ## what each template and prompt adds: MODEL=a DATASET=x [PROMPTS= SPLIT= POOLING= UNLABELLED=1]
	$(call need,MODEL,MODEL=openai-b32 DATASET=cub)
	$(PIPELINE) prompts-rank $(GIVEN)

.PHONY: sweep
sweep: $(READY) ## many variants of an ensemble, ranked on cached features: RECIPE=sweeps/demo.yaml [OVERWRITE=1]
	$(call need,RECIPE,RECIPE=sweeps/demo.yaml)
	$(PIPELINE) sweep $(GIVEN)

##@ Training on labelled data (features are cached; the first use installs the extras report and train)

.PHONY: train
train: $(TRAIN_READY) ## a head on frozen features or a fine-tuned tower, a member like any other: RECIPE=training/name.yaml
	$(call need,RECIPE,RECIPE=training/name.yaml)
	$(PIPELINE) train $(GIVEN)

.PHONY: probe
probe: $(REPORT_READY) ## linear probe, without a recipe: MODEL=a DATASET=x
	$(call need,MODEL,MODEL=openai-b32 DATASET=few-shot)
	$(call need,DATASET,MODEL=openai-b32 DATASET=few-shot)
	$(PIPELINE) probe $(GIVEN)

.PHONY: kshot
kshot: $(REPORT_READY) ## accuracy over k images per class: MODEL=a DATASET=x [METHODS="mlp" SHOTS="1 4 16" SEEDS=5]
	$(call need,MODEL,MODEL=openai-b32 DATASET=few-shot)
	$(call need,DATASET,MODEL=openai-b32 DATASET=few-shot)
	$(PIPELINE) kshot $(GIVEN)

##@ Any images

.PHONY: analyse
analyse: $(REPORT_READY) ## what the images are like: sizes, duplicates, resolution, damage; HTML page and CSV
	$(PIPELINE) analyse $(GIVEN)

.PHONY: predict
predict: $(READY) $(if $(filter %.parquet,$(OUT)),$(PARQUET_READY)) ## any folder: MODEL=x IMAGES=folder LABELS=a,b,c [TOP=5 TEMPLATE='a {}.' OUT=results.csv, .jsonl, .parquet]
	$(call need,MODEL,MODEL=openai-b32 IMAGES=folder LABELS=names.json)
	$(call need,IMAGES,MODEL=openai-b32 IMAGES=folder LABELS=names.json)
	$(call need,LABELS,MODEL=openai-b32 IMAGES=folder LABELS=names.json)
	$(PIPELINE) predict $(GIVEN)

.PHONY: export
export: $(PARQUET_READY) ## Parquet for a vector database: image features of MODEL=x, or labels and scores of ENSEMBLE=x [OUT=name.parquet]
	$(PIPELINE) export $(GIVEN)

##@ Recipes and caches

.PHONY: new
new: $(READY) ## files of a new competition: COMPETITION=x IMAGES=folder CLASSES=a,b,c [SAMPLE=file.csv], or UNDO=1
	$(if $(call flag,UNDO),,$(call need,IMAGES,COMPETITION=x IMAGES=folder CLASSES=a$(comma)b$(comma)c))
	$(if $(call flag,UNDO),,$(call need,CLASSES,COMPETITION=x IMAGES=folder CLASSES=a$(comma)b$(comma)c))
	$(PIPELINE) new $(GIVEN)

.PHONY: use
use: $(READY) ## the competition that is meant where none is given: COMPETITION=x
	$(PIPELINE) use $(GIVEN)

.PHONY: prompts-write
prompts-write: $(READY) ## ask a language model to describe the classes, as a prompt set: COMPETITION=x [N=20]
	$(PIPELINE) prompts-write $(GIVEN)

.PHONY: models
models: $(READY) ## the models there are: size, accuracy, licence, on disk or to download
	$(PIPELINE) models $(GIVEN)

.PHONY: verify
verify: $(READY) ## is a checkpoint right? MODEL=x by its library's own way and by ours (without MODEL: what is on disk)
	$(PIPELINE) verify $(GIVEN)

.PHONY: inspect
inspect: $(READY) ## what a cached file is and what it was made from: FILE=cache/...pt
	$(call need,FILE,FILE=cache/demo/probs/...)
	$(PIPELINE) inspect $(GIVEN)

.PHONY: clean-cache
clean-cache: $(READY) ## list and remove what no current recipe uses (DRY=1 only lists)
	$(PIPELINE) clean-cache $(GIVEN)

##@ The project

.PHONY: test
test: $(DEV_READY) ## lint, check types and run the default tests
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/ruff format --check --quiet .
	@$(VENV)/bin/mypy --no-error-summary
	@OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses auto

.PHONY: test-slow
test-slow: $(DEV_READY) ## run the slow tests
	@OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -m slow --numprocesses auto --dist worksteal

.PHONY: test-faults
test-faults: $(DEV_READY) ## damage, kills and fuzzing at length: what docs/RELIABILITY.md promises
	@OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -m faults --numprocesses auto --dist worksteal

.PHONY: audit
audit: $(VENV)/.installed-audit ## does the index still serve the wheels we pin, and is any known to be vulnerable?
	@mkdir -p build/wheels
	@grep -e '--hash=' requirements-all.txt | $(VENV)/bin/python -m pip download --quiet --no-deps --require-hashes \
	  --dest build/wheels -r /dev/stdin
	@sed 's/ .*//; /^#/d' requirements-all.txt > build/pins.txt
	@$(VENV)/bin/pip-audit --strict --requirement build/pins.txt --disable-pip --no-deps

.PHONY: sbom
sbom: $(VENV)/.installed-audit ## what is installed, as CycloneDX JSON: build/sbom.json
	@mkdir -p build
	@$(VENV)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --of JSON \
	  --output-file build/sbom.json $(RUN)

.PHONY: lock
lock: $(VENV)/.installed-audit ## write the requirement files, after a change of pyproject.toml [UPGRADE=1]
	@$(VENV)/bin/python tools/lock.py $(if $(call flag,UPGRADE),--upgrade)

.PHONY: bench
bench: $(DEV_READY) ## measure what the README claims; writes bench/README.md
	@$(VENV)/bin/python bench/run.py

.PHONY: help
help: ## this text
	@{ awk -F '## ' '/^##@ /{printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## /{split($$1, t, ":"); printf "  make %-13s %s\n", t[1], $$2}' $(firstword $(MAKEFILE_LIST)); \
	printf '\nVariables (make submit COMPETITION=scene ENSEMBLE=winner)\n'; \
	$(foreach v,$(VARIABLES),printf '  %-12s %-10s %s\n' $(v) $(call quote,$($(v))) \
	  "$$(sed -n 's/^$(v) *=[^#]*# *//p' $(firstword $(MAKEFILE_LIST)))";) } | awk -v most="$${COLUMNS:-80}" ' \
	  length($$0) <= most { print; next } \
	  { indent = /^  make / ? 21 : /^  [A-Z]/ ? 26 : 2; line = substr($$0, 1, indent); n = split(substr($$0, indent + 1), words, " "); at = 0; \
	    for (i = 1; i <= n; i++) { \
	      if (at && length(line) + 1 + length(words[i]) > most) { print line; line = sprintf("%*s", indent, ""); at = 0 } \
	      line = line (at++ ? " " : "") words[i] } \
	    print line }'

.DEFAULT:
	@$(call unknown,target,$@,$(shell sed -n 's/^\([a-z-]*\):.*\#\# .*/\1/p' $(firstword $(MAKEFILE_LIST))))

# ---- set-up: a stamp is newer than the pins it was installed from

$(VENV)/bin/python:
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	python3 -m venv $(VENV)

# of the lines that a command prints, those with a hash first, by hash: with all that they bring, in wheels for every
# platform; then the others, by version: each platform has its own wheels of them, which may bring what no other needs
define install
	@$(1) | grep -e '--hash=' | $(VENV)/bin/python -m pip install --quiet --no-deps --require-hashes -r /dev/stdin
	@$(1) | grep -v -e '--hash=' | $(VENV)/bin/python -m pip install --quiet -r /dev/stdin
endef

$(VENV)/.installed: requirements.txt | $(VENV)/bin/python
	$(call install,cat requirements.txt)
	@touch $@

# an extra of pyproject.toml: the lines that name it behind their #
$(VENV)/.installed-%: requirements-all.txt $(VENV)/.installed
	$(call install,grep -e '==.*#.* $*\( \|$$\)' requirements-all.txt)
	@touch $@

.PHONY: environment
environment:
	@$(RUN) tools/environment.py
