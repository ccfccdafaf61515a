# make quickstart | build | test | format | cuda-bundle; each installs what it needs (Debian).
BUILD ?= build
JOBS ?= $(shell nproc)

.PHONY: quickstart build test cuda-bundle deps deps-test format clean

quickstart: build
	scripts/quickstart.sh $(BUILD)/lathe

build: deps
	cmake -S . -B $(BUILD) -G Ninja -DCMAKE_BUILD_TYPE=Release -DLATHE_TESTS=OFF
	cmake --build $(BUILD) --parallel $(JOBS) --target lathe lathe_shared

test: deps-test
	cmake -S . -B $(BUILD) -G Ninja -DCMAKE_BUILD_TYPE=Release -DLATHE_TESTS=ON
	cmake --build $(BUILD) --parallel $(JOBS)
	ctest --test-dir $(BUILD) --output-on-failure

# lathe-cuda/: a program that runs where there is a driver and CUDA's libraries and nothing of Lathe.
cuda-bundle: deps
	cmake -S . -B $(BUILD)-bundle -G Ninja -DCMAKE_BUILD_TYPE=Release -DLATHE_TESTS=OFF -DLATHE_PORTABLE=ON -DLATHE_CUDA=ON
	cmake --build $(BUILD)-bundle --parallel $(JOBS) --target lathe
	scripts/bundle.sh $(BUILD)-bundle/lathe lathe-cuda

deps:
	scripts/install_packages.sh run

deps-test:
	scripts/install_packages.sh run test

format:
	git ls-files '*.h' '*.c' '*.cpp' '*.cu' '*.cuh' | xargs clang-format -i

clean:
	rm -rf $(BUILD) $(BUILD)-bundle lathe-cuda
