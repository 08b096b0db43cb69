# The face of the build. Everything goes into build/ (build-asan/, build-tsan/, build-fuzz/ for the special ones).
# Each target first installs the Debian packages it misses, which needs root; so do the end-to-end tests and the demo,
# because they mount.

JOBS ?= $(shell nproc)
FUZZ_SECONDS ?= 20
STRESS ?= 100000
STRESS_TESTS ?= Stress.S10_*:Stress.S12_*:Stress.S20_*:Stress.S29_*
SOAK_ROUNDS ?= 20
SOAK ?=
OTHER ?=
PREFIX ?= /usr/local
DESTDIR ?=

PACKAGES = scripts/install-packages.sh
# Tests and benchmarks stay in or out of build/ as the last target that cared left them.
CONFIGURE = cmake --preset release --log-level=WARNING $(if $(wildcard build/CMakeCache.txt),,-DHYDRANT_TESTS=OFF -DHYDRANT_BENCH=OFF)
BUILD = cmake --build build -j $(JOBS)
CTEST = ctest --output-on-failure --no-tests=error

.PHONY: all demo test lint fuzz oracle stress soak bench install asan tsan clean
.NOTPARALLEL:

all:
	@$(PACKAGES) build
	@$(CONFIGURE) > /dev/null
	@$(BUILD)

# A real image, pulled and unpacked in full and mounted lazily, side by side.
demo: all
	@$(PACKAGES) demo
	@scripts/demo.sh

# All tests, as many at a time as there are cores. ctest's summary comes last.
test:
	@$(PACKAGES) build test
	@$(CONFIGURE) -DHYDRANT_TESTS=ON > /dev/null
	@$(BUILD)
	@cd build && $(CTEST) -j $(JOBS)

lint:
	@$(PACKAGES) build lint
	@scripts/lint.sh

# Every decoder, FUZZ_SECONDS each.
fuzz:
	@$(PACKAGES) build fuzz
	@cmake --preset fuzz --log-level=WARNING > /dev/null
	@cmake --build build-fuzz -j $(JOBS) --target fuzzers
	@scripts/fuzz.sh build-fuzz $(FUZZ_SECONDS)

# The same scripts on a real kernel that has /dev/cachefiles (Linux 6.1, built once, booted in qemu) and on our engine,
# compared answer by answer; then hydrant-fetchd serves images to that kernel: tests/oracle/README.md.
oracle:
	@$(PACKAGES) build test oracle
	@$(CONFIGURE) -DHYDRANT_TESTS=ON > /dev/null
	@$(BUILD) --target oracle_engine oracle_agent hydrant-fetchd
	@tests/oracle/oracle.py run --engine build/bin/oracle_engine --agent build/bin/oracle_agent
	@tests/oracle/device.py --fetchd build/bin/hydrant-fetchd

# Races of the engine under each sanitizer, STRESS iterations of each of STRESS_TESTS (a filter of gtest's: "Stress.*" are
# all there are, "ModelTest.*" compares with a model). On a disk in memory, for each iteration of some makes a cache.
stress:
	@$(PACKAGES) build test
	@for kind in tsan asan; do \
	  cmake --preset $$kind --log-level=WARNING > /dev/null && cmake --build build-$$kind -j $(JOBS) --target cachefiles_test && \
	  TMPDIR=/dev/shm HYDRANT_STRESS=$(STRESS) build-$$kind/bin/cachefiles_test --gtest_filter='$(STRESS_TESTS)' || exit 1; \
	done

# The fault tests (daemons killed in the middle of reads) SOAK_ROUNDS times, until one fails; then the long forms of what
# stands under tests/fault, or those of them that SOAK names, each within an hour, and a table with a line for each. OTHER
# is the bin directory of another version's build: then every second upgrade is to it.
soak:
	@$(PACKAGES) build test
	@$(CONFIGURE) -DHYDRANT_TESTS=ON > /dev/null
	@$(BUILD)
	@cd build && $(CTEST) -L fault --repeat until-fail:$(SOAK_ROUNDS)
	@tests/fault/soak.py $(if $(OTHER),--other $(OTHER)) $(SOAK)

# The figures of the promises: time to ready, bytes moved, throughput against curl and ext4, memory.
bench:
	@$(PACKAGES) build test demo bench
	@$(CONFIGURE) -DHYDRANT_BENCH=ON > /dev/null
	@$(BUILD)
	@bench/run.sh

install: all
	@DESTDIR=$(DESTDIR) cmake --install build --prefix $(PREFIX) > /dev/null
	@install -D -m 644 docs/man/hydrant.1 $(DESTDIR)$(PREFIX)/share/man/man1/hydrant.1
	@install -D -m 644 docs/man/hydrant-fetchd.8 $(DESTDIR)$(PREFIX)/share/man/man8/hydrant-fetchd.8
	@install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	@for unit in hydrant hydrant-device; do \
	  sed 's|@BINDIR@|$(PREFIX)/bin|' packaging/systemd/$$unit.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/$$unit.service; \
	done

# The tests beside the code under sanitizers. Programs that the shim is loaded into are not built with AddressSanitizer's
# runtime, which must come first.
asan tsan:
	@$(PACKAGES) build test
	@cmake --preset $@ --log-level=WARNING > /dev/null
	@cmake --build build-$@ -j $(JOBS)
	@cd build-$@ && $(CTEST) -j $(JOBS) -L unit $(if $(filter asan,$@),-E '^shim\.')

clean:
	@rm -rf build build-asan build-tsan build-fuzz
