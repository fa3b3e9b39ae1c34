# ptycast. `make help` lists the targets; HACKING.md says more.
#
# One build is one FLAVOUR: release (in build/), asan, tsan, clang or fuzz (in build/FLAVOUR/). The
# targets that people call look first whether something must be installed, then call this Makefile
# again for the files: so it parses on a machine that has none of the tools yet.

FLAVOUR ?= release
PREFIX ?= /usr/local
FUZZ_SECONDS ?= 20
CHAOS_SECONDS ?= 600
AGENT_BYTES_MAX := 153600

B := build$(if $(filter-out release,$(FLAVOUR)),/$(FLAVOUR))
O := build/obj/$(FLAVOUR)
Q := $(if $(V),,@)
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDARY:

# --- compilers and flags (CFLAGS and LDFLAGS are yours: they come last) ---

ifeq ($(origin CC),default)
CC := gcc
endif
cc := $(if $(filter clang fuzz,$(FLAVOUR)),clang,$(CC))

# _FORTIFY_SOURCE warns at every result that is not looked at, (void) or not: a wake-up written to an
# eventfd is such a one.
base := -std=c17 -D_GNU_SOURCE -I. -g -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror \
	-Wno-unused-result
# gcc guesses wrong about initialisation in instrumented code.
sanitized := -O1 -fno-omit-frame-pointer $(if $(findstring clang,$(cc)),,-Wno-maybe-uninitialized)
cflags_release := -O2 -D_FORTIFY_SOURCE=2 -fstack-protector-strong
cflags_clang := $(cflags_release)
cflags_asan := $(sanitized) -fsanitize=address,undefined -fno-sanitize-recover=all
cflags_tsan := $(sanitized) -fsanitize=thread
cflags_fuzz := $(sanitized) -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
ldflags_release := -Wl,-z,relro,-z,now
# Shared, gcc's two runtimes do not agree where reports go.
ldflags_asan := -fsanitize=address,undefined \
	$(if $(findstring clang,$(cc)),,-static-libasan -static-libubsan)
ldflags_tsan := -fsanitize=thread
ldflags_fuzz := -fsanitize=fuzzer,address,undefined
cflags = $(base) $(cflags_$(FLAVOUR)) $(CFLAGS)
ldflags = $(ldflags_$(FLAVOUR)) -pthread -Wl,--as-needed $(LDFLAGS)

agent_cflags := $(filter-out -g,$(base)) -Os -ffunction-sections -fdata-sections \
	-fno-asynchronous-unwind-tables
agent_ldflags := -static -Wl,--gc-sections -s

# Asked once, and only when something is compiled or linked.
packages := libmicrohttpd libwebsockets libuv libjwt jansson libsodium sqlite3 libcurl hiredis
lib_cflags = $(eval lib_cflags := $$(shell pkg-config --cflags $(packages)))$(lib_cflags)
libs = $(eval libs := $$(shell pkg-config --libs $(packages)))$(libs)

# --- sources ---

folders := service handlers tunnel providers store wire agent
service_src := $(filter-out service/main.c,$(foreach d,service handlers tunnel providers store,\
	$(wildcard $(d)/*.c)))
wire_src := $(wildcard wire/*.c)
agent_src := $(wildcard agent/*.c)
unit_src := $(shell find tests/unit -name 'test_*.c' 2>/dev/null)
unit_support_src := $(shell find tests/unit -name '*.c' ! -name 'test_*' 2>/dev/null)
web_src := $(shell find web -type f 2>/dev/null)
product_c := $(wildcard $(addsuffix /*.c,$(folders)))
all_c := $(shell find $(wildcard $(folders) tests bench scripts) -name '*.[ch]' 2>/dev/null)
all_js := $(shell find $(wildcard web tests bench scripts) -name '*.js' -o -name '*.mjs' 2>/dev/null)

objects = $(patsubst %.c,$(O)/%.o,$(1))
# Where a sanitizer's reports go, and what it must not report.
sanitizers := $(if $(filter asan tsan,$(FLAVOUR)),$(O)/scripts/sanitizers.o)

unit_programs := $(patsubst %.c,$(B)/%,$(unit_src))
tool_programs := $(patsubst %.c,$(B)/%,$(wildcard tests/tools/*.c))
fuzz_programs := $(patsubst tests/fuzz/%.c,$(B)/%,$(wildcard tests/fuzz/fuzz_*.c))
bench_programs := $(patsubst %.c,$(B)/%,$(wildcard bench/*.c))
arm64_cc := $(shell command -v aarch64-linux-gnu-gcc 2>/dev/null)
agents := $(B)/ptycast-agent
ifeq ($(FLAVOUR),release)
agents += $(if $(arm64_cc),$(B)/ptycast-agent-arm64)
endif

# --- what people call ---

sub = +$(Q)$(MAKE) --no-print-directory $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc))

.PHONY: all run test unit e2e asan tsan test-chaos test-compose fuzz lint format bench agent clang install clean help

all: setup-build ## Build the service and the agents (the default)
	$(sub) programs

run: setup-build ## Build, and start a terminal service on loopback (ARGS="more flags")
	$(sub) FLAVOUR=release programs
	@mkdir -p build/run
	@exec build/ptycast serve --providers local --agent build/ptycast-agent \
		--store sqlite:build/run/ptycast.db --local-on-stop end $(ARGS)

test: setup-test ## Everything: unit and e2e tests, again under the sanitizers, clang, fuzz corpora
	@node scripts/test.mjs

unit: setup-test ## Unit tests (T=part-of-a-path, FLAVOUR=asan|tsan)
	@node scripts/test.mjs unit:$(FLAVOUR)

e2e: setup-test ## End-to-end tests (T=part-of-a-path, N=name-pattern, FLAVOUR=asan|tsan)
	@node scripts/test.mjs e2e:$(FLAVOUR)

asan: setup-test ## Unit and e2e tests under AddressSanitizer and UBSan
	@node scripts/test.mjs unit:asan e2e:asan

tsan: setup-test ## Unit and e2e tests under ThreadSanitizer
	@node scripts/test.mjs unit:tsan e2e:tsan

test-chaos: setup-test ## Three replicas and a Redis in trouble for CHAOS_SECONDS (600) (SEED=number)
	$(sub) FLAVOUR=release programs tool-programs
	@node tests/chaos/main.mjs --seconds $(CHAOS_SECONDS) $(if $(SEED),--seed $(SEED))

test-compose: setup-build ## docker-compose.yml for real, by podman, with failures (root; ARGS=--keep keeps the images)
	$(sub) FLAVOUR=release tool-programs
	@node scripts/test-compose.mjs $(ARGS)

fuzz: setup-test ## Run every fuzz target for FUZZ_SECONDS (20) each (T=part-of-a-path)
	@FUZZ_SECONDS=$(FUZZ_SECONDS) node scripts/test.mjs fuzz

lint: setup-lint ## Formatting, clang-tidy, cppcheck, imports, scripts, openapi.yaml
	$(sub) --keep-going --output-sync=target FLAVOUR=clang lint-format lint-tidy lint-cppcheck \
		lint-imports lint-scripts lint-openapi

format: setup-lint ## Format the C in place
	$(Q)clang-format -i $(all_c)

bench: setup-bench ## Build and run the benchmarks
	$(sub) FLAVOUR=release programs bench-programs tool-programs
	@if [ -f bench/run.mjs ]; then node bench/run.mjs; elif [ -f bench/run.sh ]; then sh bench/run.sh; fi

agent: setup-build ## Build the agents: x86_64, and arm64 where the cross compiler is
	$(sub) FLAVOUR=release agents
	$(if $(arm64_cc),,@echo "no aarch64-linux-gnu-gcc here: skipped build/ptycast-agent-arm64")

clang: setup-test ## Compile everything with clang too, under the same warnings
	$(sub) FLAVOUR=clang everything

install: all ## Install into PREFIX (/usr/local), below DESTDIR
	install -D -m 755 build/ptycast $(DESTDIR)$(PREFIX)/bin/ptycast
	for agent in build/ptycast-agent build/ptycast-agent-arm64; do \
		[ ! -f $$agent ] || install -D -m 755 -t $(DESTDIR)$(PREFIX)/lib/ptycast $$agent; \
	done

clean: ## Remove build/
	rm -rf build

help: ## This list
	@sed -n 's/^\([a-z0-9-]*\):.* ## \(.*\)/  \1	\2/p' Makefile | expand -t 15

# --- files ---

.PHONY: programs agents unit-programs tool-programs fuzz-programs bench-programs everything FORCE \
	setup-build setup-test setup-lint setup-bench
programs: $(B)/ptycast agents
agents: $(agents)
unit-programs: $(unit_programs)
tool-programs: $(tool_programs)
fuzz-programs: $(fuzz_programs)
bench-programs: $(bench_programs)
everything: programs unit-programs tool-programs bench-programs

setup-build setup-test setup-lint setup-bench: setup-%:
	@scripts/setup.sh $*

# Rewritten when compiler or flags change: then all objects of the flavour are made anew.
$(O)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(cc) $(cflags) $(ldflags) $(agent_cflags)' | cmp -s - $@ || \
		echo '$(cc) $(cflags) $(ldflags) $(agent_cflags)' >$@

$(O)/%.o: %.c $(O)/flags
	@mkdir -p $(@D); echo "  CC $(FLAVOUR) $<"
	$(Q)$(cc) $(cflags) $(lib_cflags) -MMD -MP -c $< -o $@

$(O)/gen/%.o: build/gen/%.c $(O)/flags
	@mkdir -p $(@D)
	$(Q)$(cc) $(cflags) -MMD -MP -c $< -o $@

$(O)/scripts/sanitizers.o: CFLAGS += -DREPORTS='"$(CURDIR)/$(B)/reports"'

# q, not r: two folders may have a file of the same name.
%.a:
	$(Q)rm -f $@; ar qcs $@ $^
$(O)/libwire.a: $(call objects,$(wire_src))
$(O)/libagent.a: $(call objects,$(filter-out agent/main.c,$(agent_src)))
$(O)/libservice.a: $(call objects,$(service_src)) $(O)/gen/web_assets.o
$(O)/libunit.a: $(call objects,$(unit_support_src))

define link
@mkdir -p $(@D); echo "  LD $@"
$(Q)$(cc) $(cflags) $(ldflags) $(filter %.o,$^) $(filter %.a,$^) $(1) -o $@
endef

$(B)/ptycast: $(O)/service/main.o $(O)/libservice.a $(O)/libwire.a $(sanitizers)
	$(call link,$(libs))

ifeq ($(FLAVOUR),release)
# The agent is uploaded into sandboxes of any kind: static, small, and never over its limit.
build/ptycast-agent: agent_cc := musl-gcc
build/ptycast-agent: $(patsubst %.c,build/obj/musl/%.o,$(agent_src) $(wire_src))
build/ptycast-agent-arm64: agent_cc := aarch64-linux-gnu-gcc
build/ptycast-agent-arm64: $(patsubst %.c,build/obj/arm64/%.o,$(agent_src) $(wire_src))
build/ptycast-agent build/ptycast-agent-arm64:
	@echo "  LD $@"
	$(Q)$(agent_cc) $(agent_cflags) $(agent_ldflags) $^ -o $@
	@[ $@ != build/ptycast-agent ] || [ $$(stat -c %s $@) -le $(AGENT_BYTES_MAX) ] || \
		{ echo "$@ has $$(stat -c %s $@) bytes, more than $(AGENT_BYTES_MAX)" >&2; exit 1; }
define compile_agent
@mkdir -p $(@D); echo "  CC $(agent_cc) $<"
$(Q)$(agent_cc) $(agent_cflags) -MMD -MP -c $< -o $@
endef
build/obj/musl/%.o: %.c $(O)/flags
	$(compile_agent)
build/obj/arm64/%.o: %.c $(O)/flags
	$(compile_agent)
else
$(B)/ptycast-agent: $(call objects,$(agent_src)) $(O)/libwire.a $(sanitizers)
	$(call link)
endif

$(B)/tests/unit/wire/%: $(O)/tests/unit/wire/%.o $(O)/libunit.a $(O)/libwire.a $(sanitizers)
	$(call link,-lcmocka)
$(B)/tests/unit/agent/%: $(O)/tests/unit/agent/%.o $(O)/libunit.a $(O)/libagent.a $(O)/libwire.a $(sanitizers)
	$(call link,-lcmocka)
$(B)/tests/unit/%: $(O)/tests/unit/%.o $(O)/libunit.a $(O)/libservice.a $(O)/libwire.a $(sanitizers)
	$(call link,-lcmocka $(libs))
$(B)/tests/tools/%: $(O)/tests/tools/%.o $(O)/libwire.a $(sanitizers)
	$(call link)
$(B)/bench/%: $(O)/bench/%.o $(O)/libwire.a
	$(call link,$(libs) -lm)
build/fuzz/fuzz_%: $(O)/tests/fuzz/fuzz_%.o $(O)/libwire.a
	$(call link)

# The page and the contract, embedded into the service.
build/web/.built: $(web_src) package-lock.json
	@echo "  WEB build/web"; rm -rf build/web.new
	$(Q)node web/build.mjs build/web.new
	$(Q)rm -rf build/web; mv build/web.new build/web; touch $@

build/gen/web_assets.c: build/web/.built openapi.yaml scripts/embed.mjs
	@mkdir -p $(@D)
	$(Q)node scripts/embed.mjs build/web openapi.yaml >$@

-include $(shell find $(O) build/obj/musl build/obj/arm64 -name '*.d' 2>/dev/null)

# --- lint: the stamps hang on clang's objects, so that a changed header counts ---

.PHONY: lint-format lint-tidy lint-cppcheck lint-imports lint-scripts lint-openapi

lint-format:
	$(Q)clang-format --dry-run -Werror $(all_c)

lint-tidy: $(patsubst %.c,build/lint/%.tidy,$(product_c))
build/lint/%.tidy: %.c $(O)/%.o .clang-tidy
	@mkdir -p $(@D); echo "  TIDY $<"
	$(Q)clang-tidy --quiet $< -- $(cflags) $(lib_cflags) 2>&1 | \
		{ ! grep -v '^[0-9]* warnings\? generated\.$$'; }
	@touch $@

lint-cppcheck:
	@mkdir -p build/lint/cppcheck
	$(Q)cppcheck --quiet --error-exitcode=1 --enable=warning,performance,portability,style \
		--std=c11 --library=posix,gnu --inline-suppr --suppressions-list=scripts/cppcheck.supp \
		--cppcheck-build-dir=build/lint/cppcheck -D_GNU_SOURCE -I. $(product_c)

lint-imports:
	$(Q)sh scripts/check-imports.sh

lint-scripts:
	$(Q)for f in scripts/*.sh .ci/run; do bash -n $$f || exit 1; done
	$(Q)for f in $(all_js); do node --check $$f || exit 1; done

lint-openapi:
	$(Q)REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true \
		node_modules/.bin/redocly lint --format=stylish openapi.yaml
