# make demo          see it run; demo-cluster: three replicas on PostgreSQL, of which one is killed now and then
# make test          the whole suite
# make setup         only install; clean: remove what was installed
# make check         ruff and mypy; format: let ruff rewrite
# make cover         branches that no test takes
# make docs          write the generated pages of docs/ anew, and build the site in build/site
# make figures       how large and how entangled the code is (TREE=… for another checkout)
# make lock          renew the lock files
# make image         build the container
# make bench         how fast it is
# make fuzz          100,000 odd inputs through the door and the core (a quarter of an hour)
# make day           a simulated day of 200 homes, without and with an outage and as a backlog, judged (40 minutes)
# make mutants       break each promise on purpose and see the tests notice (ONLY=R9: those of one promise)
# make chaos         everything that can go wrong, at once and by chance, for ten minutes
#                    (SEED=… MINUTES=… STORE=postgresql: three replicas, and the server goes too)
# make isolation     attacks of one sender beside honest ones, on both stores, judged (ONLY=8 or ONLY=8a: of one line)
# make kafka         100,000 records through two daemons and a real broker while all of them are killed (some minutes)
# make broker        only fetch that broker

PYTHON ?= $(firstword $(foreach each,python3 python3.11 python3.12 python3.13 python3.14,\
	$(shell $(each) -c 'import sys; sys.version_info >= (3, 11) and print("$(each)")' 2>/dev/null)))
BIN := .venv/bin
STAMP := .venv/installed
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-header --no-strip-extras --no-emit-index-url --no-emit-find-links --no-emit-package moost-bridge
BUILDER ?= docker build
IMAGE ?= moost-bridge
MINUTES ?= 10
STORE ?= sqlite
SEED ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-cluster test check format cover bench day broker chaos fuzz isolation kafka mutants docs figures lock image clean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP)

# Hashes for everything that comes from outside, the build backend included; the project itself is only linked.
$(STAMP): tests/requirements.lock pyproject.toml
	$(if $(PYTHON),,$(error Python 3.11 or newer is needed; name it by PYTHON=…))
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r tests/requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
	@touch $@

demo: setup
	@$(BIN)/moost-bridge demo

demo-cluster: setup
	@$(BIN)/moost-bridge demo --replicas 3

# Most tests wait for a process or a socket, so twice as many workers as the usual two cores; a file stays together, and
# the long ones do not come last.
test: setup
	@command -v strace >/dev/null || echo "strace is missing, so the tests that trace system calls are skipped: apt-get install strace"
	@command -v java >/dev/null && command -v mvn >/dev/null || \
		echo "The tests of the Kafka source are skipped: they need Java 17 and Maven (Debian: apt-get install openjdk-17-jre-headless maven)."
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null \
		|| echo "The tests of the PostgreSQL store are skipped: apt-get install postgresql brings the server."
	$(BIN)/pytest -q -n 4 --dist loadfile --no-loadscope-reorder

check: setup
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --quiet --check
	$(BIN)/mypy --no-error-summary

format: setup
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

cover: setup
	$(BIN)/pytest -q --cov --cov-report=term

bench: setup
	$(BIN)/python -m tests.bench

fuzz: setup
	$(BIN)/python -m tests.fuzz

day: setup
	$(BIN)/python -m tests.day

mutants: setup
	$(BIN)/python -m tests.mutants $(ONLY)

isolation: setup
	$(BIN)/python -m tests.isolation $(ONLY)

chaos: setup
	$(BIN)/python -m tests.chaos --minutes $(MINUTES) --store $(STORE) $(if $(SEED),--seed $(SEED))

# The jars of the broker that the tests speak to; without Java and Maven those tests are skipped.
broker: setup
	$(BIN)/python -m tests.kafka.broker

kafka: broker
	$(BIN)/pytest -q tests/kafka/long.py

docs: setup
	$(BIN)/python -m docs.generate
	$(BIN)/zensical build --clean --strict --config-file .zensical.toml

figures: setup
	$(BIN)/python -m tests.figures $(TREE)

# uv is needed only here, so nobody else installs it.
lock: setup
	@test -x $(BIN)/uv || $(BIN)/pip install --quiet --disable-pip-version-check uv
	$(LOCK) --upgrade --extra postgres --extra kafka pyproject.toml -o requirements.lock
	$(LOCK) --upgrade --extra dev -c requirements.lock pyproject.toml -o tests/requirements.lock

image:
	$(BUILDER) -t $(IMAGE) .

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .cache build tests/kafka/target
