# SPDX-License-Identifier: MIT
#
# The front door: each target calls the tool that does the work (CMake, Kbuild,
# CTest, scripts/machine). `make help` lists them.

KERNEL  ?= 6.1
CPUS    ?= 1
PRESET  ?= release
PREFIX  ?= /usr/local
DESTDIR ?=
JOBS    ?= $(shell nproc)

BUILD   := build/$(PRESET)
MACHINE := scripts/machine

# Only Dune's own options for the machine; e.g. MACHINE_ARGS='--cpu sapphire_rapids'.
MACHINE_ARGS ?=
machine_args = --kernel $(KERNEL) --cpus $(CPUS) $(MACHINE_ARGS)

.DEFAULT_GOAL := all
.PHONY: all setup user module run shell test test-unit test-vm test-all bench bench-check bench-matrix bench-baseline fuzz \
        doc install install-module format lint clean distclean help

all: user module ## Build the library, programs, tests and the kernel module

setup: ## Install the Debian packages that the build needs and this system lacks
	@scripts/setup

user: setup
	@scripts/build-user $(PRESET) $(JOBS)

module: setup
	@$(MACHINE) module --kernel $(KERNEL)

run: all ## Boot a machine with VT-x, load the module and show Dune at work in it
	@scripts/run-demo $(machine_args)

shell: all ## An interactive console in that machine
	@$(MACHINE) shell $(machine_args)

test: setup ## Every test: unit tests with sanitizers, then the matrix of machines
	@scripts/run-tests

test-all: setup ## The same on every kernel and CPU model there is
	@scripts/run-tests --all

test-unit: setup ## The tests that need no machine
	@scripts/run-tests --unit

test-vm: setup ## The tests in a machine, one row of the matrix: ROW=6.1-1cpu FILTER=regex
	@scripts/run-tests --row '$(or $(ROW),6.1-1cpu)' '$(FILTER)'

bench: all ## The paper's tables beside today's Linux: build/bench/
	@bench/run $(machine_args)

bench-check: all ## Fail when a benchmark got worse than bench/baseline.json
	@bench/run --check $(machine_args)

bench-matrix: all ## What the module aims at, on each machine of the tests: docs/performance.md
	@bench/matrix --fill docs/performance.md

bench-baseline: all ## Measure anew what bench-check compares with
	@bench/run --baseline $(machine_args)

fuzz: setup ## Fuzz the ELF reader, the image and the policy parsers (FUZZ_SECONDS=60 each), then the module
	@scripts/fuzz $(or $(FUZZ_SECONDS),60)

doc: setup ## The reference of libdune, from its headers: build/doc/html/index.html
	@mkdir -p build/doc
	@doxygen docs/Doxyfile
	@echo "doc: build/doc/html/index.html"

install: user ## Install user space and the udev rule below $(DESTDIR)$(PREFIX); no root needed
	@cmake -B $(BUILD) -DCMAKE_INSTALL_PREFIX='$(PREFIX)' >/dev/null
	@scripts/build-user $(PRESET) $(JOBS)
	@DESTDIR='$(DESTDIR)' cmake --install $(BUILD)

install-module: ## Build and install dune.ko for the running kernel (root, its headers)
	@scripts/install-module '$(DESTDIR)'

format: ## Format the C++ code in place
	@scripts/lint --format

lint: setup ## Check style and look for faults in every file
	@scripts/lint

clean: ## Remove what was built here
	@rm -rf build

distclean: clean ## Remove also the cached emulator, kernels and machine states
	@$(MACHINE) clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
