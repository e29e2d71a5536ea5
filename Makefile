# Tarmac's commands. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

STACK := env/host/stack.sh
# A command in the airflow-cli container, with a terminal where there is one.
CLI := $(STACK) exec airflow-cli python -m tarmac.cli
CLI_PIPED := $(STACK) exec -T airflow-cli python -m tarmac.cli
TTY := $(shell [ -t 0 ] && [ -t 1 ] && echo yes)

.PHONY: help
help: ## List the commands
	@echo "Tarmac trains models on shared GPUs. Start with: make demo"; echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-22s %s\n", $$1, $$2}'

.PHONY: up
up: ## Build what is missing, start the stack, wait until it answers
	@env/host/up.sh

.PHONY: ensure-up
ensure-up:
	@env/host/stack.sh exec -T airflow-cli true >/dev/null 2>&1 || { \
		echo "The stack is not running: 'make up' starts it." >&2; exit 3; }

.PHONY: down
down: ## Stop the stack; runs, models and data sets are kept, trainings go on
	@env/host/down.sh

.PHONY: clean
clean: ## Remove the stack with all its runs, models, data sets and secrets (asks first; YES=1 does not)
	@env/host/clean.sh $(if $(YES),--yes)

.PHONY: backup
backup: ensure-up ## Save databases, data sets, models and secrets to FILE=backup.tar; the stack runs on
	@[ -n "$(FILE)" ] || { echo "Say where to: make backup FILE=backup.tar" >&2; exit 2; }
	@env/host/backup.sh "$(FILE)"

.PHONY: restore
restore: ## Replace what the stack holds by FILE=backup.tar (asks first; YES=1 does not)
	@[ -f "$(FILE)" ] || { echo "FILE: there is no file '$(FILE)'. Say which backup: make restore FILE=backup.tar" >&2; exit 2; }
	@env/host/restore.sh "$(FILE)" $(if $(YES),--yes)

.PHONY: demo
demo: ## Start the stack, train a named-entity model on WNUT17, show the result
	@env/host/up.sh
	@env/host/demo.sh

.PHONY: trigger
trigger: ensure-up ## Check CONFIG=req.json, start a session, follow it (FOLLOW=0: return at once; KEY=: at most once)
	@[ -n "$(CONFIG)" ] || { echo "Say which request to send: make trigger CONFIG=examples/ner-wnut17.json" >&2; exit 2; }
	@env/host/trigger.sh "$(CONFIG)" "$(FOLLOW)" "$(KEY)"

.PHONY: follow
follow: ensure-up ## Follow RUN=run-id to its end
	@[ -n "$(RUN)" ] || { echo "Say which run: make follow RUN=..., one of these:" >&2; $(CLI_PIPED) sessions >&2; exit 2; }
	@$(if $(TTY),$(CLI),$(CLI_PIPED)) follow "$(RUN)"

.PHONY: dataset
dataset: ensure-up ## Store FILE=data.jsonl, print what to put in a request
	@[ -n "$(FILE)" ] || { echo "Say which file to store: make dataset FILE=examples/tiny.jsonl" >&2; exit 2; }
	@[ -f "$(FILE)" ] || { echo "FILE: there is no file '$(FILE)'." >&2; exit 2; }
	@$(CLI_PIPED) dataset < "$(FILE)"

.PHONY: script
script: ensure-up ## Store FILE=train.py, your own training code, print what to put in a request
	@case "$(FILE)" in *.py|*.sh) ;; *) echo "Say which .py or .sh file to store: make script FILE=train.py" >&2; exit 2 ;; esac
	@[ -f "$(FILE)" ] || { echo "FILE: there is no file '$(FILE)'." >&2; exit 2; }
	@$(CLI_PIPED) dataset --suffix "$(suffix $(FILE))" < "$(FILE)"

.PHONY: trainers
trainers: ensure-up ## List the models a request may name, and who trains each
	@$(CLI_PIPED) trainers

.PHONY: ps
ps: ensure-up ## Show the services and the latest training sessions
	@$(STACK) ps --format 'table {{.Service}}\t{{.Status}}'
	@echo
	@$(CLI_PIPED) sessions

.PHONY: gpus
gpus: ensure-up ## Show the GPUs, who holds them, who waits and why
	@$(CLI_PIPED) gpus

.PHONY: release-gpu
release-gpu: ensure-up ## Take GPU=uuid out of quarantine
	@[ -n "$(GPU)" ] || { echo "Say which GPU: make release-gpu GPU=..., one of these:" >&2; $(CLI_PIPED) gpus >&2; exit 2; }
	@$(CLI_PIPED) release-gpu "$(GPU)" --by "$(USER)"

.PHONY: models
models: ensure-up ## List models: version, alias, metric, data, age (MODEL=name: of one)
	@$(CLI_PIPED) models $(if $(MODEL),"$(MODEL)")

.PHONY: compare
compare: ensure-up ## Show two versions side by side: A=name/1 B=name/2
	@[ -n "$(A)" ] && [ -n "$(B)" ] || { echo "Say which two: make compare A=name/1 B=name/2, of these:" >&2; $(CLI_PIPED) models >&2; exit 2; }
	@$(CLI_PIPED) compare "$(A)" "$(B)"

.PHONY: promote
promote: ensure-up ## Put VERSION=n of MODEL=name into production (WHY="...": for the record)
	@[ -n "$(MODEL)" ] && [ -n "$(VERSION)" ] || { echo "Say what: make promote MODEL=name VERSION=n, of these:" >&2; $(CLI_PIPED) models >&2; exit 2; }
	@$(CLI_PIPED) promote "$(MODEL)" "$(VERSION)" --by "$(USER)" --why "$(WHY)"

.PHONY: rollback
rollback: ensure-up ## Take the last promotion of MODEL=name back (WHY="...")
	@[ -n "$(MODEL)" ] || { echo "Say which model: make rollback MODEL=name, of these:" >&2; $(CLI_PIPED) models >&2; exit 2; }
	@$(CLI_PIPED) rollback "$(MODEL)" --by "$(USER)" --why "$(WHY)"

.PHONY: production
production: ensure-up ## Say which version of MODEL=name is in production and was before (AT=2026-11-24T08:30:00Z: was then)
	@[ -n "$(MODEL)" ] || { echo "Say which model: make production MODEL=name, of these:" >&2; $(CLI_PIPED) models >&2; exit 2; }
	@$(CLI_PIPED) production "$(MODEL)" $(if $(AT),--at "$(AT)")

.PHONY: reproduce
reproduce: ensure-up ## Train again from the record of RUN=run-id; fails unless the metrics match
	@[ -n "$(RUN)" ] || { echo "Say which run: make reproduce RUN=..., one of these:" >&2; $(CLI_PIPED) sessions >&2; exit 2; }
	@$(CLI_PIPED) reproduce "$(RUN)"

.PHONY: logs
logs: ## Show and follow the services' logs (SERVICE=name: only one)
	@$(STACK) logs --follow --tail 50 $(SERVICE)

# Arguments of pytest for the three loops of a developer: K=words selects tests by name, ARGS="--lf -x" is passed on.
PYTEST_ARGS = $(if $(K),-k "$(K)") $(ARGS)

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

.PHONY: mutate
mutate: ## Break the code in 40 places, one after the other: do the tests notice? (K=words, SUITES="pure postgres trainer")
	@tests/check.sh dev
	@.venv/bin/python tests/tools/mutate.py $(if $(K),-k "$(K)") $(if $(SUITES),--suites "$(SUITES)")

.PHONY: test
test: ## Run every test, in a stack of its own beside a running one
	@tests/run.sh all

.PHONY: test-unit
test-unit: ## Run the tests that need no engine
	@tests/run.sh unit

.PHONY: test-gpu
test-gpu: ## Run the GPU tests on a machine with two fake GPUs (part of make test)
	@tests/run.sh gpu

.PHONY: test-faults
test-faults: ## Kill, stop and cut off parts of a stack while sessions train (part of make test)
	@tests/run.sh faults

.PHONY: chaos
chaos: ## Kill something at random in each of ROUNDS=20 rounds while sessions train (SEED=: as before; GPUS=0: CPU only)
	@ROUNDS="$(ROUNDS)" SEED="$(SEED)" GPUS="$(GPUS)" tests/run.sh chaos

.PHONY: lint
lint: ## ruff, shellcheck
	@tests/run.sh lint

.PHONY: types
types: ## mypy --strict
	@tests/run.sh types

.PHONY: sbom
sbom: ## List what is in each image as CycloneDX JSON, in build/sbom
	@tests/run.sh sbom

.PHONY: notices
notices: ## Write THIRD-PARTY-NOTICES.md: the licence of each package that the images carry
	@.venv/bin/python tests/tools/notices.py

.PHONY: audit
audit: ## Look for known vulnerabilities in what the images are made of; says what could not be looked up
	@tests/run.sh audit

.PHONY: bench
bench: bench-pipeline bench-quality bench-admission bench-handover ## Print all figures, one after the other (about an hour)

.PHONY: bench-pipeline
bench-pipeline: ensure-up ## Measure the pipeline's overhead and the idle stack; prints ratios
	@tests/bench/bench_pipeline.sh

.PHONY: bench-admission
bench-admission: ## Simulate admission on GPU traces and walk at random over it (STEPS=10000000: longer)
	@STEPS="$(STEPS)" tests/run.sh bench-admission

.PHONY: bench-handover
bench-handover: ## Time how long a GPU waits between two sessions, on a machine with two fake GPUs (READINGS=32 TRAIN_SECONDS=30)
	@READINGS="$(READINGS)" TRAIN_SECONDS="$(TRAIN_SECONDS)" tests/run.sh bench-handover

.PHONY: bench-quality
bench-quality: ## Train each spaCy model on the example data, beside plain spaCy (MODEL=name, UPDATES=n, SEEDS=n)
	@MODEL="$(MODEL)" UPDATES="$(UPDATES)" SEEDS="$(SEEDS)" tests/run.sh bench-quality

.PHONY: lock
lock: ## Pin every image's dependencies again, with hashes (needs uv)
	@env/host/lock.sh
