# One task runner. `make demo` and `make test` set up what they need.

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := build/demo
RECIPE := training/crosseai/training/recipes/phantoms.toml
UNSEEN := $(DEMO)/unseen
IMAGES ?= $(UNSEEN)/images

export PATH := $(CURDIR)/$(BIN):$(PATH)

.DELETE_ON_ERROR:
.PHONY: setup demo test lint types cpp unit integration fuzz wheel bench clean readers

setup: $(READY)

# The environment, and the separate one of the embedded Triton server.
$(READY): pyproject.toml constraints.txt CMakeLists.txt $(wildcard postproc_ext/*/*.[ch]pp postproc_ext/include/*/*/*.hpp triton_models/kernels/*.[ch]pp)
	$(PYTHON) -m venv $(VENV)
	pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	crosseai-serve doctor --install
	touch $@

## demo: train a small model on phantoms, export it, serve it, score, evaluate

demo: export MLFLOW_TRACKING_URI := sqlite:///$(DEMO)/mlflow.db
demo: $(DEMO)/model/model.onnx
	crosseai-train evaluate --model $$(< $(DEMO)/run) --data $(UNSEEN) --part all
	@rm -rf $(DEMO)/{.journal,manifest.json,overlays,panels}
ifeq ($(IMAGES),$(UNSEEN)/images)
	crosseai-client run $(IMAGES) --output $(DEMO) --explain $(UNSEEN)/BBox_List_2017.csv --boxes $(UNSEEN)/BBox_List_2017.csv --write overlay,panel
	crosseai-client evaluate $(DEMO) --boxes $(UNSEEN)/BBox_List_2017.csv
else
	crosseai-client run '$(patsubst ~/%,$(HOME)/%,$(IMAGES))' --output $(DEMO) --write overlay,panel || [ $$? -eq 1 ]
endif
	@echo 'pictures: $(DEMO)/panels and $(DEMO)/overlays; tables: $(DEMO)/predictions.csv and $(DEMO)/boxes.csv'

$(DEMO)/phantoms/BBox_List_2017.csv: | $(READY)
	rm -rf $(UNSEEN) $(DEMO)/phantoms
	crosseai-train phantoms --output $(UNSEEN) --count 60 --seed 2
	crosseai-train phantoms --output $(DEMO)/phantoms --count 1000 --seed 1

# The last line that `fit` prints is its run, runs:/ID.
$(DEMO)/run: $(DEMO)/phantoms/BBox_List_2017.csv $(RECIPE)
	set -o pipefail; crosseai-train fit --data $(DEMO)/phantoms | tee $@.log
	tail -n 1 $@.log > $@

# At 128 pixels the last stage has 4 x 4 of them; the one before it has 8 x 8.
$(DEMO)/model/model.onnx: $(DEMO)/run
	crosseai-export onnx --model $$(< $(DEMO)/run) --layer layer3 --output $(DEMO)/model

## test: everything that needs no GPU

test:
	$(MAKE) --jobs=2 --output-sync=target lint types cpp
	$(MAKE) unit integration

lint: $(READY)
	ruff check .
	ruff format --check .
	codespell
	git ls-files '*.cpp' '*.hpp' | xargs clang-format --dry-run --Werror

types: $(READY)
	mypy
	python -m mypy.stubtest crosseai.postproc

cpp: $(READY)
	cmake -S . -B build/cpp -G Ninja -D CROSSEAI_SANITIZE=ON
	clang-tidy -p build/cpp --quiet postproc_ext/src/*.cpp postproc_ext/tests/*.cpp triton_models/kernels/*.cpp
	cmake --build build/cpp
	ctest --test-dir build/cpp --output-on-failure

# Two processes on two cores, each of one thread: waiting threads would spin.

unit integration: export OMP_NUM_THREADS := 1

unit: $(READY)
	pytest -n 2 --dist loadfile tests/unit

# The longest files first, so that neither process ends with one alone.
LONGEST := $(addprefix tests/integration/,test_readme.py test_training_processes.py)

integration: $(READY)
	pytest -n 2 --dist loadfile --no-loadscope-reorder $(LONGEST) tests/integration

# What reads the annotation files in tests, where it is there; its packages do not fit beside ours.

readers:
	$(PYTHON) -m venv build/readers
	build/readers/bin/pip install --quiet datumaro fiftyone label-studio-sdk

## fuzz: libFuzzer on the C++ core, for FUZZ_SECONDS

FUZZ_SECONDS ?= 600
CLANGXX ?= $(firstword $(shell command -v clang++) $(wildcard /usr/bin/clang++-*))

fuzz: $(READY)
	@test -n '$(CLANGXX)' || { echo 'make fuzz: expected clang++, which brings libFuzzer; found none' >&2; exit 1; }
	cmake -S . -B build/fuzz -G Ninja -D CROSSEAI_SANITIZE=ON -D CMAKE_CXX_COMPILER=$(CLANGXX)
	cmake --build build/fuzz --target fuzz_localize
	mkdir -p build/fuzz/found
	build/fuzz/fuzz_localize -max_total_time=$(FUZZ_SECONDS) -max_len=2048 build/fuzz/found postproc_ext/tests/corpus

wheel: $(READY)
	python -m build --outdir build/dist

BENCHMARKS := comparison comparison_real contrastive cost decoding graph index loader pool postproc precision presets promotion shared_memory throughput

bench: $(READY)
	for name in $(BENCHMARKS); do python -m benchmarks.$$name || exit; done

clean:
	rm -rf build
