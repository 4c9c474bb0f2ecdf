# One verb per target. `make help` lists them.

PYTHON ?=
ARGS ?=
# 1 has `make faults` take its longer forms.
FULL ?=
# Sequences that `make histories` runs on real proxies.
PROCESSES ?= 1000
# One more than there are cores: many tests wait for real time. No test owns a fixed port or path.
JOBS ?= $(shell expr $$(nproc) + 1)
# Tests that share a world stay together (xdist_group).
PYTEST = .venv/bin/python -m pytest -n $(JOBS) --dist loadgroup

export PYTHON
# Debian keeps unbound and dnsmasq where only root's PATH looks.
export PATH := $(PATH):/usr/sbin:/sbin

.PHONY: help run test lint types unit e2e browser interop netns faults fuzz slowest audit soak fleet histories deploy bench profile compiled pages docs pictures lock dist release format clean
.DEFAULT_GOAL := help
# Every target starts with the same set-up, which must not run twice at once.
.NOTPARALLEL:

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

run: ## Run the demo on loopback; ARGS="--once" adds options
	@scripts/setup.sh run
	.venv/bin/dnsproxy demo $(ARGS)

test: ## Lint, check types, run every test
	@scripts/setup.sh packages
	@scripts/setup.sh tools
	@$(MAKE) --no-print-directory lint types
	@.venv/bin/python -m tests.interop.judges
	$(PYTEST) $(ARGS)

lint: ## Check style, formatting and shell scripts
	@scripts/setup.sh dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/shellcheck scripts/*.sh bench/setup.sh .ci/run

types: ## Check types
	@scripts/setup.sh dev
	.venv/bin/mypy

unit: ## Run the tests that start no process; ARGS="-k seal" adds options
	@scripts/setup.sh dev
	$(PYTEST) -m "not e2e and not netns and not faults and not interop and not deploy and not browser" $(ARGS)

e2e: ## Run the tests that start real processes and foreign DNS programs
	@scripts/setup.sh packages
	@scripts/setup.sh dev
	$(PYTEST) -m e2e $(ARGS)

browser: ## Run the tests that look at the status page in a real Chromium
	@scripts/setup.sh packages
	@scripts/setup.sh dev
	$(PYTEST) -m browser $(ARGS)

interop: ## Have foreign clients, resolvers and decoders judge the proxy; prints their versions
	@scripts/setup.sh packages
	@scripts/setup.sh dev
	$(PYTEST) tests/interop $(ARGS)

netns: ## Run the tests in network namespaces, with a real registry and skopeo; as root
	@scripts/setup.sh packages
	@scripts/setup.sh dev
	$(PYTEST) -m netns $(ARGS)

faults: ## Run the tests of faults: bad networks, helpers, hosts; FULL=1 for their longer forms
	@scripts/setup.sh packages
	@scripts/setup.sh dev
	DNSPROXY_FAULTS_FULL=$(FULL) $(PYTEST) -m faults $(ARGS)

fuzz: ## Fuzz the parsers for a minute each; ARGS="--seconds 600 reply --keep" adds options
	@scripts/setup.sh dev
	.venv/bin/python -m tests.faults.fuzz $(ARGS)

slowest: ## Search for the most expensive packet of each parser, a minute each; ARGS="--seconds 600 chain --keep"
	@scripts/setup.sh dev
	.venv/bin/python -m tests.faults.slowest $(ARGS)

audit: ## Look up what is installed among known vulnerabilities (asks PyPI and needs it)
	@scripts/setup.sh dev
	@mkdir -p build
	.venv/bin/python -m pip list --format=freeze --exclude dnsproxy >build/installed.txt
	@test -x build/audit/bin/pip-audit || \
	  { .venv/bin/python -m venv build/audit && build/audit/bin/python -m pip install --quiet pip-audit; }
	build/audit/bin/pip-audit --requirement build/installed.txt --no-deps --disable-pip --strict $(ARGS)

soak: ## An hour of mixed load with troubles at random; writes docs/soak.md; ARGS="--minutes 5"
	@scripts/setup.sh packages
	@scripts/setup.sh dev
	.venv/bin/python -m tests.soak.run $(ARGS)

fleet: ## Changes to 500 real engines, and a model of 10,000; writes docs/convergence.md; ARGS="--proxies 100"
	@scripts/setup.sh packages
	@scripts/setup.sh dev
	.venv/bin/python -m tests.fleet.run $(ARGS)

histories: ## Compare 100,000 random lives of learned addresses with the reference model, and PROCESSES of real proxies; as root
	@scripts/setup.sh dev
	.venv/bin/python -m tests.model.run --jobs $(JOBS) $(ARGS)
	.venv/bin/python -m tests.model.run --processes $(PROCESSES) $(ARGS)

deploy: ## Check deploy/, each file with its own tool
	@scripts/setup.sh packages
	@scripts/setup.sh tools
	$(PYTEST) -m deploy $(ARGS)

bench: ## Measure a compiled build beside unbound, dnsdist, dnsmasq, BIND and the PowerDNS recursor
	@bench/setup.sh
	@scripts/setup.sh compiled
	.venv-compiled/bin/python -m bench $(ARGS)

profile: ## Show where the time of a workload goes; ARGS="--workload hits"
	@bench/setup.sh
	@scripts/setup.sh compiled
	.venv-compiled/bin/python -m bench.profiling $(ARGS)

compiled: ## Make .venv-compiled with the query path compiled by mypyc, and run its tests there
	@scripts/setup.sh compiled
	rm -rf build/compiled && mkdir -p build/compiled && cp -r tests pyproject.toml build/compiled
	cd build/compiled && ../../.venv-compiled/bin/python -c \
	  'import dnsproxy.core.wire as m; assert m.__file__.endswith(".so"), m.__file__'
	cd build/compiled && ../../.venv-compiled/bin/python -m pytest -n $(JOBS) \
	  tests/core tests/net tests/properties tests/scenarios tests/test_server.py

pages: ## Write the pages of docs/ that are made from the program
	@scripts/setup.sh dev
	.venv/bin/python -m docgen
	.venv/bin/python -m scripts.reference
	.venv/bin/python -m scripts.openapi

docs: ## Build the site of docs/ into build/site
	@scripts/setup.sh dev
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet

lock: ## Write the lock files (requirements*.lock); ARGS="--upgrade" takes newer versions
	@scripts/setup.sh dev
	scripts/lock.sh $(ARGS)

dist: ## Build the packages and the bill of materials into dist/, and check them in a clean environment
	@scripts/setup.sh dev
	scripts/dist.sh

release: ## Check that this commit is fit for a release, make dist, set the tag
	@scripts/setup.sh dev
	scripts/release.sh

pictures: ## Take the pictures of the status page in docs/images anew; as root
	@scripts/setup.sh packages
	@scripts/setup.sh dev
	.venv/bin/python scripts/screenshots.py

format: ## Put the code into its one format
	@scripts/setup.sh dev
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

clean: ## Remove the environment, caches and build results
	rm -rf .venv .venv-compiled .tools build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
