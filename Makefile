# make quickstart | build | test | format; each installs what it needs (Debian).
BUILD ?= build
JOBS ?= $(shell nproc)

.PHONY: quickstart build test deps deps-test format clean

quickstart: build
	scripts/quickstart.sh $(BUILD)/lathe

build: deps
	cmake -S . -B $(BUILD) -G Ninja -DCMAKE_BUILD_TYPE=Release -DLATHE_TESTS=OFF
	cmake --build $(BUILD) --parallel $(JOBS) --target lathe lathe_shared

test: deps-test
	cmake -S . -B $(BUILD) -G Ninja -DCMAKE_BUILD_TYPE=Release -DLATHE_TESTS=ON
	cmake --build $(BUILD) --parallel $(JOBS)
	ctest --test-dir $(BUILD) --output-on-failure

deps:
	scripts/install_packages.sh run

deps-test:
	scripts/install_packages.sh run test

format:
	git ls-files '*.h' '*.c' '*.cpp' '*.cu' '*.cuh' | xargs clang-format -i

clean:
	rm -rf $(BUILD)
