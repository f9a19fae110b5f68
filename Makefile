# Every target works from a fresh checkout: it calls `setup` first. Nothing outside the checkout is written.
PYTHON ?= python3
BIN := .venv/bin
CDK := PATH="$(CURDIR)/$(BIN):$$PATH" node_modules/.bin/cdk
DOCTOR := PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/extended-dlc doctor
# the CDK's remarks on Node's age are for its developers; errors still show
export NODE_NO_WARNINGS := 1
export JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION := 20

.PHONY: help setup doctor deploy diff destroy rehearse smoke-aws lint types test test-fast clients attack bench schemas soak matrix docs openapi wheel lock oldest-cdk pyright versions checkov moto-tests site clean

help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: .venv/.ready node_modules/.package-lock.json ## .venv and node_modules

.venv/.ready: requirements.txt requirements-dev.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

node_modules/.package-lock.json: package-lock.json
	npm ci --no-audit --no-fund --loglevel=error
	@touch $@

doctor: setup ## what would stop a deployment, and what to type next
	$(DOCTOR) $(ARGS)

deploy: setup ## cdk deploy, to the AWS account of your credentials (DOCTOR=true: without the doctor)
	$(DOCTOR) --skip cdk-on-path
	$(CDK) deploy --all $(ARGS)

diff: setup ## what a deploy would change
	$(CDK) diff $(ARGS)

destroy: setup ## cdk destroy: everything that costs
	$(CDK) destroy --all $(ARGS)

rehearse: setup ## the whole way on this machine, with no AWS account (SCENARIO=tutorial: the tutorial's proof)
	$(BIN)/extended-dlc rehearse $(if $(SCENARIO),--scenario $(SCENARIO)) $(ARGS)

smoke-aws: setup ## deploy to AWS, ask both models, destroy; costs money: REGION=… ARGS="--hourly-price …"
	$(BIN)/extended-dlc smoke $(or $(REGION),$(error say where: make smoke-aws REGION=us-east-1)) $(ARGS)

lint: setup ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## mypy over the library, the stacks, the server and an app of a stranger's
	$(BIN)/mypy
	$(BIN)/mypy examples/citizen.py

.venv/.models: tests/runtime/requirements.txt .venv/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check -r tests/runtime/requirements.txt
	@touch $@

test: setup .venv/.models ## all tests (the rehearsal is a target of its own)
	$(BIN)/python -m pytest $(ARGS)

test-fast: setup ## the unit tests alone
	$(BIN)/python -m pytest tests/unit $(ARGS)

attack: setup .venv/.models ## attacks on the image's server, half an hour (ARGS="--minutes 3": the part of CI)
	RUST_BACKTRACE=0 $(BIN)/python -m pytest tests/attack $(ARGS)

clients: setup .venv/.models ## clients from PyPI, unmodified, against the server: docs/clients.md (ARGS=--quick: the part of CI)
	$(BIN)/python -m tests.clients $(ARGS)

bench: setup .venv/.models ## the figures of benchmarks/ (an hour and a half; ARGS="--minutes 8": a part of the serving ones)
	$(if $(ARGS),,$(BIN)/python benchmarks/synth.py)
	$(if $(ARGS),,$(BIN)/python benchmarks/image_layer.py)
	$(if $(ARGS),,$(BIN)/python benchmarks/ways.py)
	$(BIN)/python benchmarks/serving.py $(ARGS)

schemas: setup .venv/.models ## a tokenizer's response_schema, with a transformers release that reads it
	$(BIN)/python tests/runtime/ask_with_schema.py

soak: setup .venv/.models ## mixed load on the server, MINUTES=30: answers that stay right, memory that stays level
	$(BIN)/python benchmarks/soak.py --minutes $(or $(MINUTES),30)

matrix: setup .venv/.models ## docs/matrix.md: which transformers releases the image's layer carries (ARGS=RELEASE …)
	$(BIN)/python benchmarks/matrix.py $(ARGS)

openapi: setup ## docs/openapi and docs/parameters.md, from the tables that the server checks requests with
	$(BIN)/python tests/runtime/test_openapi.py

docs: setup openapi ## everything under docs/ that is generated: references, tables, screens, pictures
	$(BIN)/python -m extended_dlc.app.reference
	$(BIN)/python -m maintain.architecture
	$(BIN)/python -m tests.rehearsal.embedded.test_changes
	$(BIN)/python -m extended_dlc.rehearsal.embedded.fidelity
	$(BIN)/python tests/runtime/test_toolkit_table.py
	$(BIN)/python -m tests.clients.table
	$(BIN)/python -m tests.unit.test_terminal
	$(BIN)/python benchmarks/pictures.py

wheel: setup ## dist/*.whl, the same bytes from the same commit
	SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)} $(BIN)/python -m build --wheel --outdir dist

lock: setup ## resolve the Python dependencies again
	$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --no-emit-index-url --no-header \
	    --no-emit-find-links --no-annotate requirements.in --output-file requirements.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --no-emit-index-url --no-header \
	    --no-emit-find-links --no-annotate --constraint requirements.txt --extra dev pyproject.toml \
	    --output-file requirements-dev.txt
	$(BIN)/python -m maintain.shipped_lock

oldest-cdk: setup ## every example with the oldest CDK, and other dependencies, that pyproject.toml allows
	$(BIN)/python -m maintain.oldest_cdk

pyright: setup ## pyright over the example apps and the public interface, as the installed wheel has them
	$(BIN)/python -m maintain.pyright

versions: setup ## an example under each Node and each Python of this machine
	$(BIN)/python -m maintain.versions

checkov: setup ## checkov over the templates of every example: what is found without a reason (docs/checkov.md)
	$(BIN)/python -m maintain.checkov

moto-tests: setup ## moto's own tests against the embedded AWS: each that differs is named (ARGS="--only EXPRESSION")
	$(BIN)/python -m maintain.moto_tests $(ARGS)

site: setup ## the documentation as a site, .cache/site/html: MkDocs in strict mode, no other hosts
	$(BIN)/python -m maintain.site

clean: ## remove what was made here, the rehearsal's images included
	@[ ! -x $(BIN)/extended-dlc ] || [ ! -d .rehearsal ] || $(BIN)/extended-dlc rehearse --down
	rm -rf .venv node_modules .rehearsal .cache cdk.out dist
