# The front door: each target sees to the packages it needs, then leaves the work to a CMake preset.
# Variables: JOBS (parallel compilations), FUZZ_SECONDS (per fuzz target), PREFIX (install), CMAKE_OPTIONS (configure).

.POSIX:
JOBS = $$(nproc)
FUZZ_SECONDS = 60
PREFIX = /usr/local
CMAKE_OPTIONS =

CAB = build/release/cab
DEMO = runs/demo
DEMO_METHODS = vanilla,soft,cab,weight-reuse,cab-best
PACKAGES = sh cmake/packages.sh
CONFIGURE = cmake $(CMAKE_OPTIONS) --log-level=WARNING --preset
BUILD = cmake --build -j $(JOBS) --preset

.PHONY: help build demo test bench asan tsan interop coverage fuzz lint format docs install uninstall package clean portable cuda gpu-test gpu-emulate \
    gpu-sanitize gpu-bench gpu-bundle

help:
	@sed -n 's/^\([a-z-]*\):.*## /\1 /p' Makefile | while read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done

build: ## the tool and the library, in build/release
	@$(PACKAGES) build
	@$(CONFIGURE) release
	@$(BUILD) release

demo: ## distils examples/tales five ways in a few minutes, with a table, a report and a sample
	@$(PACKAGES) build
	@$(CONFIGURE) release
	@$(BUILD) release --target cab
	$(CAB) distill recipes/tales-gpt2.yaml --methods $(DEMO_METHODS) --out $(DEMO) --overwrite
	$(CAB) generate $(DEMO)/cab-best/student --prompt "Once upon a time" --max-tokens 80

test: ## builds and runs every test
	@$(PACKAGES) build
	@$(CONFIGURE) release
	@$(BUILD) release
	@ctest --preset release -j $(JOBS)

bench: ## times every op, a training step of the demo, decoding, and loading images
	@$(PACKAGES) build
	@$(CONFIGURE) release
	@$(BUILD) release --target cab bench_ops bench_images
	build/release/bench/bench_ops
	$(CAB) bench step --teacher examples/tales/teacher --seq-len 256 --batch 8
	$(CAB) bench decode --teacher examples/tales/teacher --batch 1,32 --length 0,256,1024
	build/release/bench/bench_images --make build/bench-images
	build/release/bench/bench_images build/bench-images

asan: ## the tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@$(PACKAGES) build
	@$(CONFIGURE) asan-ubsan
	@$(BUILD) asan-ubsan
	@ctest --preset asan-ubsan -j $(JOBS)

tsan: ## the tests under ThreadSanitizer
	@$(PACKAGES) build clang
	@$(CONFIGURE) tsan
	@$(BUILD) tsan
	@ctest --preset tsan -j $(JOBS)

interop: ## the same models in cab, transformers and llama.cpp (installs both in build/interop): bench/results/interop.md
	@$(PACKAGES) build
	@$(CONFIGURE) release
	@$(BUILD) release --target cab interop_reference
	@sh tests/interop/run.sh

coverage: ## which lines the tests reach: build/coverage/index.html
	@$(PACKAGES) build coverage
	@$(CONFIGURE) coverage
	@$(BUILD) coverage
	@ctest --preset coverage -j $(JOBS)
	@gcovr --root . --filter src/ --object-directory build/coverage --print-summary \
	    --html-details build/coverage/index.html build/coverage >/dev/null

fuzz: ## the parsers against hostile files, FUZZ_SECONDS each
	@$(PACKAGES) build clang
	@$(CONFIGURE) fuzz
	@$(BUILD) fuzz
	@sh tests/fuzz/run.sh build/fuzz $(FUZZ_SECONDS)

lint: ## format, clang-tidy and the rules of the house
	@$(PACKAGES) build clang lint
	@$(CONFIGURE) debug
	@sh tests/includes.sh
	@sh cmake/lint.sh build/debug

format: ## formats the sources in place
	@$(PACKAGES) lint
	@sh cmake/lint.sh --format

docs: ## manual pages and completions: build/release/doc
	@$(PACKAGES) build
	@$(CONFIGURE) release
	@$(BUILD) release --target docs

install: ## the tool, library, header, manual pages and completions under PREFIX
	@$(PACKAGES) build
	@$(CONFIGURE) release
	@$(BUILD) release
	cmake --install build/release --prefix $(PREFIX)
	@if [ -z "$$DESTDIR" ] && [ "$$(id -u)" = 0 ]; then ldconfig; fi # the linker learns of libcab.so

uninstall: ## removes what make install put under PREFIX
	@cmake -D PREFIX=$(PREFIX) -P cmake/uninstall.cmake

package: ## a .deb, and a tarball of a program that needs only the C library: build/packages
	@$(PACKAGES) build portable package
	@$(CONFIGURE) package
	@$(BUILD) package
	@cpack --config build/package/CPackConfig.cmake
	@$(CONFIGURE) portable
	@$(BUILD) portable
	@cpack --config build/portable/CPackConfig.cmake
	@sh cmake/check_packages.sh build/packages

portable: ## one binary for a bare machine: build/portable/cab
	@$(PACKAGES) build portable
	@$(CONFIGURE) portable
	@$(BUILD) portable

cuda: ## the tool and the library with kernels for NVIDIA GPUs, in build/cuda
	@JOBS=$(JOBS) CMAKE_OPTIONS="$(CMAKE_OPTIONS)" sh cmake/gpu.sh build

gpu-test: ## every test that runs on a GPU, on one
	@JOBS=$(JOBS) CMAKE_OPTIONS="$(CMAKE_OPTIONS)" sh cmake/gpu.sh test

gpu-emulate: ## tests of GPU kernels on an emulated GPU; needs CUDA's headers and Python
	@JOBS=$(JOBS) CMAKE_OPTIONS="$(CMAKE_OPTIONS)" sh cmake/gpu.sh emulate

gpu-sanitize: ## compute-sanitizer over the tests of every op, on a GPU
	@JOBS=$(JOBS) CMAKE_OPTIONS="$(CMAKE_OPTIONS)" sh cmake/gpu.sh sanitize

gpu-bench: ## times every op and training steps on a GPU
	@JOBS=$(JOBS) CMAKE_OPTIONS="$(CMAKE_OPTIONS)" sh cmake/gpu.sh bench

gpu-bundle: ## what the build needs on a GPU machine where nothing can be installed: build/gpu-bundle
	@sh cmake/gpu.sh bundle

clean: ## removes build/ (runs/ stays)
	rm -rf build
