# Tarmac's commands. `make help` lists them.
#
# How values reach a command: a variable that a user gives on the command line (FILE=, WHY=, ...) stands in ARGUMENTS. It
# is exported as it was typed, and a recipe uses "$$FILE", in double quotes: make expands nothing in it, the shell neither.
# A recipe never writes $(FILE): that would put the value into the shell's code. Only the command line counts: a variable
# of the environment that happens to have the same name is not read. One that is given, also as empty, stands in GIVEN.
# What make itself drops: blanks at the beginning of a value.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# Every path below is from this folder.
ifneq ($(dir $(firstword $(MAKEFILE_LIST))),./)
$(error Tarmac's commands work in its own folder: write 'make -C FOLDER' instead of 'make -f FOLDER/Makefile')
endif

ARGUMENTS := A ARGS AT B CONFIG DAYS DIR FILE FINGERPRINT FIX FOLLOW GPU GPUS HOST HOSTS JSON K KEY MEASUREMENTS MODEL NAME PART QUICK \
	ROUNDS RUN SEED SEEDS SERVICE STEPS SUITES TARGET TRAIN_SECONDS UPDATES URL VERSION WHY YES
# Every name that stands on the command line; one with a _ may be a setting of the environment, such as TARMAC_TAG.
TYPED := $(foreach name,$(.VARIABLES),$(if $(findstring command line,$(origin $(name))),$(name)))
GIVEN :=
define take_literally
ifeq "$$(origin $(1))" "command line"
GIVEN += $(1)
override $(1) := $$(value $(1))
else
override $(1) :=
endif
export $(1)
endef
$(foreach name,$(ARGUMENTS),$(eval $(call take_literally,$(name))))
# A name that a command does not take is refused: it is misspelled, or meant for another command. What a command takes
# stands in its line of help. A make that a command of another make started got that one's names: there nothing is refused.
ifeq ($(MAKELEVEL),0)
ifneq ($(strip $(GIVEN) $(filter-out $(ARGUMENTS),$(TYPED))),)
# command:FILE:KEY, one word a command
TAKES := $(shell sed -n 's/^\([a-z-]*\):.*\#\# /\1 /p' '$(firstword $(MAKEFILE_LIST))' | awk '{ names = $$1; \
	while (match($$0, /[A-Z][A-Z_]*=/)) { names = names ":" substr($$0, RSTART, RLENGTH - 1); \
	$$0 = substr($$0, RSTART + RLENGTH) } print names ":" }')
takes = $(filter-out $(1),$(subst :, ,$(filter $(1):%,$(TAKES))))
WANTED := $(foreach goal,$(MAKECMDGOALS),$(call takes,$(goal)))
ODD := $(filter-out $(WANTED),$(GIVEN) $(foreach name,$(filter-out $(ARGUMENTS),$(TYPED)),$(if $(findstring _,$(name)),,$(name))))
ifneq ($(and $(ODD),$(filter $(addsuffix :%,$(MAKECMDGOALS)),$(TAKES))),)
$(error $(firstword $(ODD)): 'make $(firstword $(MAKECMDGOALS))' does not take it. It takes $(or $(strip $(WANTED)),no value); 'make help' says what)
endif
endif
endif
# $(call if_given,NAME,TEXT): TEXT if the user gave NAME.
if_given = $(if $(filter $(1),$(GIVEN)),$(2))

CLI := env/host/cli.sh

.PHONY: help
help: ## List the commands
	@echo "Tarmac trains models on shared GPUs. Start with: make demo"; echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-22s %s\n", $$1, $$2}' || [ "$$?" = 141 ]

.DEFAULT:
	@$(error There is no command '$@': 'make help' lists them)

.PHONY: up
up: ## Build what is missing, start the stack, wait until it answers
	@env/host/up.sh

.PHONY: down
down: ## Stop the stack; runs, models and data sets are kept, trainings go on
	@env/host/down.sh

.PHONY: clean
clean: ## Remove the stack with all its runs, models, data sets and secrets (asks first; YES=1 does not)
	@env/host/clean.sh "$$YES"

.PHONY: passwords
passwords: ## Give the running stack new passwords and signing keys; sessions go on (asks first; YES=1 does not)
	@env/host/passwords.sh "$$YES"

.PHONY: backup
backup: ## Save databases, data sets, models and secrets to FILE=backup.tar; the stack runs on
	@env/host/backup.sh "$$FILE"

.PHONY: restore
restore: ## Replace what the stack holds by FILE=backup.tar (asks first; YES=1 does not)
	@env/host/restore.sh "$$FILE" "$$YES"

.PHONY: demo
demo: ## Start the stack, train a named-entity model on WNUT17, show the result
	@env/host/up.sh
	@env/host/demo.sh

.PHONY: trigger
trigger: ## Check CONFIG=req.json, start a session, follow it (FOLLOW=0: return at once; KEY=: at most once)
	@env/host/trigger.sh "$$CONFIG" "$$FOLLOW" $(call if_given,KEY,"$$KEY")

.PHONY: follow
follow: ## Follow RUN=run-id to its end
	@$(CLI) follow "$$RUN"

.PHONY: cancel
cancel: ## End RUN=run-id, in whatever state it is
	@$(CLI) cancel "$$RUN"

.PHONY: explain
explain: ## Say why RUN=run-id waits or failed, with numbers, and what to do (JSON=1: as JSON)
	@$(CLI) explain "$$RUN"

.PHONY: retry
retry: ## Run RUN=run-id, which failed, again from the task that failed on
	@$(CLI) retry "$$RUN"

.PHONY: dataset
dataset: ## Store FILE=data.jsonl, print what to put in a request
	@$(CLI) dataset "$$FILE"

.PHONY: script
script: ## Store FILE=train.py, your own training code, print what to put in a request
	@$(CLI) script "$$FILE"

.PHONY: weights
weights: ## Store a transformer's weights of DIR=folder (safetensors), print what to put in a request as base_model
	@$(CLI) weights "$$DIR"

.PHONY: trainers
trainers: ## List the models a request may name, and the trainer of each (JSON=1: as JSON)
	@$(CLI) trainers

.PHONY: ps
ps: ## Show the services, the latest training sessions, and what took how much space (JSON=1: the sessions as JSON)
	@$(CLI) ps

.PHONY: gpus
gpus: ## Show the GPUs, their reservations, and the queue with a reason for each session (JSON=1: as JSON)
	@$(CLI) gpus

.PHONY: hosts
hosts: ## Show cores and memory of the hosts, what is reserved of them, and the queue of CPU sessions (JSON=1: as JSON)
	@$(CLI) hosts

.PHONY: host-add
host-add: ## Let another machine train: NAME=gpu2 URL=ssh://user@machine, which shows its host key first (FINGERPRINT=: pins it), or URL=tcp://machine:2376
	@$(CLI) host-add "$$NAME" "$$URL" "$$FINGERPRINT"

.PHONY: host-key
host-key: ## Print the line that lets this stack in on another machine (for its authorized_keys)
	@$(CLI) host-key

.PHONY: host-certs
host-certs: ## Make the certificates of a machine whose engine listens with TLS: NAME=gpu3 URL=tcp://gpu3:2376 FILE=gpu3-certs.tar
	@$(CLI) host-certs "$$NAME" "$$URL" "$$FILE"

.PHONY: hosts-check
hosts-check: ## Ask the provider of each kind of machine in env/hosts.toml for what it offers and what it has; starts nothing
	@$(CLI) hosts-check

.PHONY: host-drain
host-drain: ## Give host NAME=gpu2 no new session; those that train there go on
	@$(CLI) host-drain "$$NAME"

.PHONY: host-resume
host-resume: ## Give host NAME=gpu2 sessions again
	@$(CLI) host-resume "$$NAME"

.PHONY: host-remove
host-remove: ## Forget host NAME=gpu2; refused while sessions hold something of it
	@$(CLI) host-remove "$$NAME"

.PHONY: gpu-check
gpu-check: ## Say whether the GPUs can be used: driver, health, each handed to a container once (HOST=name: another host's; JSON=1: as JSON)
	@$(CLI) gpu-check "$$HOST"

.PHONY: doctor
doctor: ## Say what is wrong with the stack, part by part, and what to do (FIX=1: mend before what is safe to; JSON=1: as JSON)
	@$(CLI) doctor "$$FIX"

.PHONY: support
support: ## Collect versions, settings, states and logs of this stack in FILE=support.tar.gz for a person who helps you; no secrets (RUN=run-id: a session's logs, too)
	@env/host/support.sh "$$FILE" "$$RUN"

.PHONY: space
space: ## Say what takes how much space, and what is removed by itself (DAYS=7: as if TARMAC_KEEP_DAYS and TARMAC_KEEP_ARTIFACTS_DAYS were 7; JSON=1: as JSON)
	@$(CLI) space $(call if_given,DAYS,"$$DAYS")

.PHONY: notify-test
notify-test: ## Send a test message to each target of env/notify.toml, or to TARGET=name, and say which takes it
	@$(CLI) notify-test "$$TARGET"

.PHONY: release-gpu
release-gpu: ## Take GPU=uuid out of quarantine
	@$(CLI) release-gpu "$$GPU"

.PHONY: models
models: ## List models: version, alias, metric, data, age (MODEL=name: of one; JSON=1: as JSON)
	@$(CLI) models "$$MODEL"

.PHONY: compare
compare: ## Show two versions side by side: A=name/1 B=name/2 (JSON=1: as JSON)
	@$(CLI) compare "$$A" "$$B"

.PHONY: promote
promote: ## Put VERSION=n of MODEL=name into production (WHY="...": for the record)
	@$(CLI) promote "$$MODEL" "$$VERSION" "$$WHY"

.PHONY: rollback
rollback: ## Take the last promotion of MODEL=name back (WHY="...")
	@$(CLI) rollback "$$MODEL" "$$WHY"

.PHONY: production
production: ## Say which version of MODEL=name is in production, and the history (AT=2026-11-24T08:30:00Z: at that time; JSON=1: as JSON)
	@$(CLI) production "$$MODEL" $(call if_given,AT,"$$AT")

.PHONY: reproduce
reproduce: ## Train again from the record of RUN=run-id; fails unless the metrics match
	@$(CLI) reproduce "$$RUN"

.PHONY: logs
logs: ## Show and follow the services' logs (SERVICE=name: only one)
	@$(CLI) logs "$$SERVICE"

# Arguments of pytest for the three loops of a developer: K=words selects tests by name, ARGS="--lf -x" is passed on.
# ARGS is the exception: words for pytest, split at blanks.
PYTEST_ARGS = $(call if_given,K,-k "$$K") $$ARGS

.PHONY: dev
dev: ## Make .venv from the lock, for the checks below (uv fetches itself where it is missing)
	@tests/check.sh dev

.PHONY: check
check: ## Format, lint, types, every test that needs neither Docker nor Postgres (K=words ARGS="--lf -x")
	@tests/check.sh lint
	@tests/check.sh types
	@tests/check.sh pure $(PYTEST_ARGS)

.PHONY: check-db
check-db: ## The tests that need only Postgres, on a server that they start themselves (K=, ARGS=)
	@tests/check.sh postgres $(PYTEST_ARGS)

.PHONY: check-trainer
check-trainer: ## The trainer's tests in its image, with this working tree's code (K=, ARGS=)
	@tests/check.sh trainer $(PYTEST_ARGS)

.PHONY: client
client: ## Build the client (the command tarmac and its Python package) into build/client as wheel and sdist
	@tests/check.sh build-client

.PHONY: sync-client
sync-client: ## Write the client's client.py, which is made of its aio.py
	@tests/check.sh dev
	@.venv/bin/python tests/tools/sync_client.py

.PHONY: sync-transcripts
sync-transcripts: ## Type the commands of docs/client-verbs.md again, and write what they print into it
	@UPDATE_TRANSCRIPTS=yes tests/check.sh pure tests/pure/test_transcripts.py

.PHONY: check-client
check-client: ## The client's tests on each Python of this machine, from 3.10 on (K=, ARGS=)
	@tests/check.sh client $(PYTEST_ARGS)

.PHONY: mutate
mutate: ## Break the code in one place after the other: do the tests notice? (K=words, SUITES="pure postgres trainer")
	@tests/check.sh dev
	@.venv/bin/python tests/tools/mutate.py $(call if_given,K,-k "$$K") $(call if_given,SUITES,--suites "$$SUITES")

.PHONY: test
test: ## Run every test, in stacks of their own beside a running one (PART=stack: one part of it; K=, ARGS=)
	@tests/run.sh "$${PART:-all}" $(PYTEST_ARGS)

.PHONY: test-unit
test-unit: ## Run the tests that need no engine
	@tests/run.sh unit

.PHONY: test-gpu
test-gpu: ## Run the GPU tests on a machine with two fake GPUs (part of make test)
	@tests/run.sh gpu

.PHONY: test-faults
test-faults: ## Kill, stop and cut off parts of a stack while sessions train (part of make test)
	@tests/run.sh faults

.PHONY: test-long
test-long: ## The long proofs, which are no part of make test: the clock jumps, a disk is full, DAGs come from Git, the API on a real stack, the commands of docs/hosts.md (docs/testing.md; K=, ARGS=)
	@tests/run.sh long $(PYTEST_ARGS)

.PHONY: chaos
chaos: ## Kill something at random in each of ROUNDS=20 rounds while sessions train (SEED=: repeat a run; GPUS=0: CPU only; HOSTS=3: with other hosts, by SSH and TLS)
	@tests/run.sh chaos

.PHONY: lint
lint: ## ruff, shellcheck
	@tests/run.sh lint

.PHONY: types
types: ## mypy --strict
	@tests/run.sh types

.PHONY: sbom
sbom: ## List what is in each image as CycloneDX JSON, in build/sbom
	@tests/run.sh sbom

.PHONY: release
release: ## Say whether this commit can be released: docs/release.md (QUICK=1: without the two tests)
	@.venv/bin/python tests/tools/release.py $(call if_given,QUICK,--quick)

.PHONY: notices
notices: ## Write THIRD-PARTY-NOTICES.md: the licence of each package in the images
	@.venv/bin/python tests/tools/notices.py

.PHONY: page
page: ## Serve the Tarmac page with invented sessions, without a stack (FILE=folder: save pictures of it there)
	@.venv/bin/python tests/tools/page.py $(call if_given,FILE,"$$FILE")

.PHONY: audit
audit: ## Look for known vulnerabilities in what the images are made of; says what could not be looked up
	@tests/run.sh audit

.PHONY: bench
bench: bench-pipeline bench-quality bench-admission bench-handover ## Run all benchmarks, one after the other (about an hour)

.PHONY: bench-pipeline
bench-pipeline: ## Measure the pipeline's overhead and the idle stack; prints ratios
	@tests/bench/bench_pipeline.sh

.PHONY: bench-admission
bench-admission: ## Simulate admission on GPU traces and walk at random over it (STEPS=10000000: longer)
	@tests/run.sh bench-admission

.PHONY: bench-page
bench-page: ## Measure what the Tarmac page costs the webserver of a running stack (restart the webserver before)
	@PYTHONPATH=plugins .venv/bin/python tests/bench/bench_page.py

.PHONY: bench-handover
bench-handover: ## Time how long a GPU waits between two sessions, on a machine with two fake GPUs (MEASUREMENTS=32 TRAIN_SECONDS=30)
	@tests/run.sh bench-handover

.PHONY: bench-quality
bench-quality: ## Train each spaCy model on the example data, beside plain spaCy (MODEL=name, UPDATES=n, SEEDS=n; DIR=folder: on public sets there)
	@tests/run.sh bench-quality

.PHONY: lock
lock: ## Pin every image's dependencies again, with hashes (needs uv)
	@env/host/lock.sh
