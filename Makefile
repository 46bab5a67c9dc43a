# Everything a newcomer needs: `make demo` and `make test`. `make` alone lists the rest.
# Needs rustup, a C compiler, Python 3 with pip, and make; cargo-nextest and cargo-deny are used when installed.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

CARGO ?= cargo

# Envoy: the pinned binary, unless ENVOY names another one.
ifeq ($(strip $(ENVOY)),)
ENVOY_BIN := $(CURDIR)/.envoy/envoy
else
ENVOY_BIN := $(abspath $(ENVOY))
endif

# Cargo calls the folder of its `dev` profile "debug".
PROFILE ?= dev
BIN := $(or $(CARGO_TARGET_DIR),target)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))

DEMO_FLAGS := $(if $(ONCE),--once) $(if $(ENGINES),--engines $(ENGINES))
HAS_NEXTEST := $(shell command -v cargo-nextest 2>/dev/null)
HAS_DENY := $(shell command -v cargo-deny 2>/dev/null)
FUZZ_SECONDS ?= 60
BENCH_FLAGS ?=
COMPARE_FLAGS ?=

.PHONY: help demo build test test-kube test-llama test-shuttle test-vllm check check-deploy image sbom bench bench-scrape compare fuzz envoy clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'
	@echo
	@echo '  make demo ONCE=1                           end after one burst of traffic; the exit status tells'
	@echo '  make demo ENGINES=http://127.0.0.1:8000,…  your own engines instead of simulated ones'
	@echo '  make test ENVOY=/path/to/envoy             another Envoy than the pinned one'

demo: envoy build ## engines, Fairlead and Envoy on this machine, with traffic
	@$(BIN)/fairlead-lab demo --fairlead $(BIN)/fairlead --envoy $(ENVOY_BIN) \
	  --envoy-config envoy/quickstart.yaml --run-dir run/demo $(DEMO_FLAGS)

build: ## compile both programs (PROFILE=release for speed)
	@$(CARGO) build --workspace --bins --profile $(PROFILE)

test: envoy ## every test, also those that drive the real Envoy
ifneq ($(HAS_NEXTEST),)
	@ENVOY=$(ENVOY_BIN) $(CARGO) nextest run --workspace
	@$(CARGO) test --quiet --workspace --doc
else
	@ENVOY=$(ENVOY_BIN) $(CARGO) test --workspace
endif

# The opt-in suites print what the engines showed, so their output is not kept back.
REAL := $(CARGO) test --package fairlead --test

test-kube: ## discovery against a real kube-apiserver (builds it once: 10 minutes)
	@tools/fetch-kube.sh
	@FAIRLEAD_KUBE=$(CURDIR)/.kube $(REAL) real_kube -- --ignored --nocapture

test-llama: envoy ## a real llama.cpp server behind Fairlead and Envoy (builds it once: 15 minutes)
	@tools/fetch-llama.sh
	@ENVOY=$(ENVOY_BIN) FAIRLEAD_LLAMA_SERVER=$(CURDIR)/.llama/llama-server FAIRLEAD_LLAMA_MODEL=$(CURDIR)/.llama/model.gguf \
	  $(REAL) real_llama -- --ignored --nocapture

test-shuttle: ## the prefix index in thousands of orders of its threads
	@RUSTFLAGS='--cfg shuttle' $(CARGO) test --package fairlead --lib --target-dir $(or $(CARGO_TARGET_DIR),target)/shuttle -- shuttle_

test-vllm: envoy ## a real vLLM on the CPU behind Fairlead and Envoy (installs it once: 6.5 GB)
	@tools/fetch-vllm.sh
	@ENVOY=$(ENVOY_BIN) FAIRLEAD_VLLM_VENV=$(CURDIR)/.vllm/venv FAIRLEAD_VLLM_MODEL=$(CURDIR)/.vllm/model \
	  $(REAL) real_vllm --test real_vllm_events -- --ignored --nocapture

check: ## formatting, lints, documentation, dependency rules
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --workspace --all-targets -- -D warnings
	@RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --quiet
ifneq ($(HAS_DENY),)
	@$(CARGO) deny --log-level warn check bans licenses sources
else
	@echo 'cargo-deny is not installed: dependency rules not checked'
endif

check-deploy: ## render the manifests with kubectl, and put the alerts to promtool
	@command -v kubectl promtool >/dev/null || { echo 'kubectl and promtool (Debian: prometheus) have to be installed' >&2; exit 1; }
	@$(CARGO) test --package fairlead --test deploy -- --include-ignored --nocapture

image: ## the container image, with buildah (IMAGE=name, BINARY=a static program that is there already)
	@tools/image.sh

sbom: ## what the program is made of, as CycloneDX (installs cargo-cyclonedx into .cyclonedx once)
	@tools/sbom.sh $(or $(CARGO_TARGET_DIR),target)/fairlead.cdx.json

bench: envoy ## what Fairlead costs through Envoy beside a no-op service, then micro-benchmarks
	@$(MAKE) build PROFILE=release
	@$(or $(CARGO_TARGET_DIR),target)/release/fairlead-lab bench --envoy $(ENVOY_BIN) $(BENCH_FLAGS)
	@$(CARGO) bench --package fairlead

bench-scrape: ## the CPU and memory that reading the metrics of 100 and 1,000 endpoints costs
	@$(MAKE) build PROFILE=release
	@$(or $(CARGO_TARGET_DIR),target)/release/fairlead-lab scrape-cost $(BENCH_FLAGS)

compare: envoy ## every strategy against eight simulated engines of which two are half as fast
	@$(MAKE) build PROFILE=release
	@$(or $(CARGO_TARGET_DIR),target)/release/fairlead-lab compare --envoy $(ENVOY_BIN) $(COMPARE_FLAGS)

fuzz: ## each fuzz target for FUZZ_SECONDS (needs nightly Rust and cargo-fuzz)
	@command -v cargo-fuzz >/dev/null || { echo 'cargo-fuzz is not installed: cargo install cargo-fuzz' >&2; exit 1; }
	@cd fuzz && for target in $$($(CARGO) +nightly fuzz list); do \
	  $(CARGO) +nightly fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS); done

envoy: ## fetch the pinned Envoy into .envoy (ENVOY=/path uses yours)
	@ENVOY='$(ENVOY)' tools/fetch-envoy.sh

clean: ## remove what was built, fetched and written at run time
	@$(CARGO) clean --quiet
	@rm -rf .cyclonedx .envoy .kube .llama .vllm run
