# Everything a user runs starts here. The virtual environment is made once, in .venv.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# What a build compiles from; an editable install sees edits to .py files by itself.
SOURCES := pyproject.toml constraints.txt CMakeLists.txt $(wildcard csrc/*)
# Pins apply to the build's own environment too (its name in newer pips is PIP_BUILD_CONSTRAINT).
PINNED := PIP_CONSTRAINT=$(CURDIR)/constraints.txt PIP_BUILD_CONSTRAINT=$(CURDIR)/constraints.txt

.PHONY: help install demo test check format bench bench-training bench-inference bench-evaluation bench-smoke sanitize fuzz fuzz-smoke fuzz-kernels kills long-run container-test licences pins sbom bench-accuracy phantom-bundle clean

help:
	@echo "make demo            the whole path on a phantom: data, training, prediction, scores (about 13 minutes on 2 cores)"
	@echo "make test            all tests"
	@echo "make check           known vulnerabilities, lint, types, formatting, clang-tidy"
	@echo "make bench           every kernel beside its peers and a memcpy, and the table in docs/BENCHMARKS.md (about 20 minutes)"
	@echo "make bench-training  the training step, where its time goes, and loaders beside MONAI's and TorchIO's (about 20 minutes)"
	@echo "make bench-inference one scan through this project, MONAI and nnU-Net: time and memory (about 8 minutes)"
	@echo "make bench-evaluation 139 label maps scored by this project and by MONAI's metrics (18 minutes)"
	@echo "make bench-accuracy  presets, nnU-Net and MONAI trained on the frozen phantoms, alike (a day of one core)"
	@echo "make phantom-bundle  the weights that come with the software, trained anew (hours on one core)"
	@echo "make bench-smoke     the same calls on small volumes, untimed"
	@echo "make sanitize        kernel tests under the address, undefined-behaviour and thread sanitizers"
	@echo "make licences        docs/LICENCES.md: every package of this environment and its licence"
	@echo "make fuzz            20,000 hostile scans through all that reads scans: the table in docs/RELIABILITY.md (about 20 minutes)"
	@echo "make fuzz-kernels    each kernel under sanitizers with arguments that libFuzzer makes, CALLS=20000 times (about 10 minutes)"
	@echo "make pins            requirements/: the image's packages as constraints.txt has them, with the hashes of their wheels"
	@echo "make kills           every verb killed at 50 random moments and continued: the table in docs/RELIABILITY.md (about 20 minutes)"
	@echo "make long-run        500 predictions in one process, twice: memory, file handles and threads"
	@echo "make container-test  the container, built and run on real and hostile input"
	@echo "make sbom            build/sbom.json: what IMAGE (decathlon-unet) is made of, as CycloneDX"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/trainer.stamp: $(SOURCES) | $(BIN)/python
	$(PINNED) $(BIN)/pip install --quiet --editable '.[trainer]'
	@touch $@

$(VENV)/dev.stamp: $(SOURCES) | $(BIN)/python
	$(PINNED) $(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/trainer.stamp

$(VENV)/bench.stamp: $(SOURCES) | $(BIN)/python
	$(PINNED) $(BIN)/pip install --quiet --editable '.[bench]'
	@touch $@

install: $(VENV)/trainer.stamp

demo: $(VENV)/trainer.stamp
	$(BIN)/decathlon phantom demo/data --cases 36 --test 6 --size small --seed 0
	$(BIN)/decathlon prepare demo/data/Task07_Pancreas --preset fast --out demo/work
	$(BIN)/decathlon train demo/work --preset fast --out demo/run
	$(BIN)/decathlon tune demo/run/bundle --work demo/work --out demo/run/tuned
	$(BIN)/decathlon predict demo/data/Task07_Pancreas/imagesTs --model demo/run/tuned --out demo/predictions
	$(BIN)/decathlon evaluate --reference demo/data/Task07_Pancreas/labelsTs --prediction demo/predictions \
	    --out demo/scores
	$(BIN)/decathlon report demo/run demo/scores --out demo/report.html
	$(BIN)/decathlon submission demo/predictions --dataset demo/data/Task07_Pancreas --out demo/submission.zip
	$(BIN)/python tools/through_entry.py demo/data/Task07_Pancreas/imagesTs demo/run/tuned demo/predictions demo/entry

# Waiting threads of OpenMP yield: spinning, those of several test processes take each other's cores.
test: $(VENV)/dev.stamp
	OMP_WAIT_POLICY=passive $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist worksteal

container-test: $(VENV)/dev.stamp
	$(BIN)/pytest -m container tests/container

bench: $(VENV)/bench.stamp
	rm -f build/results.json build/results.machine.json
	mkdir -p build
	$(BIN)/pytest benchmarks --benchmark-only --bench-all-peers --bench-results build/results.json --timeout 1200
	mv build/results.json build/results.machine.json benchmarks/
	$(BIN)/python -m benchmarks.table

bench-training: $(VENV)/bench.stamp
	$(BIN)/python -m benchmarks.loaders
	$(BIN)/python -m benchmarks.training --compile

bench-inference: $(VENV)/bench.stamp
	$(BIN)/python -m benchmarks.inference

bench-evaluation: $(VENV)/bench.stamp
	$(BIN)/python -m benchmarks.evaluation

# Resumable: the same command continues. All on one core, as in docs/RESULTS.md, so that paces compare; the tables go to
# build/accuracy/tables. Test cases are scored by hand, with --final.
ACCURACY = OMP_NUM_THREADS=1 taskset -c 0 $(BIN)/python -m benchmarks.accuracy.run build/accuracy --device cpu
TABLES = $(BIN)/python -m benchmarks.accuracy.score build/accuracy --out build/accuracy/tables
bench-accuracy: $(VENV)/bench.stamp
	$(ACCURACY) --trial 100 --systems nnunet best
	$(ACCURACY) --trial 50 --systems monai paper paper-topk
	$(ACCURACY)
	$(ACCURACY) --equal time --systems monai paper paper-topk best best-tuned best-misses-first
	$(TABLES)
	$(ACCURACY) --budget ablation
	$(TABLES) --budget ablation

# The weights that come with the software: the frozen phantoms, then whole ones.
FROZEN = build/accuracy/data
phantom-bundle: $(VENV)/bench.stamp
	$(BIN)/python -m benchmarks.accuracy.frozen make build/accuracy
	$(BIN)/decathlon prepare $(FROZEN)/Task07_Pancreas --split $(FROZEN)/split.json --preset tools/phantom-first.toml --out build/phantom/frozen
	$(BIN)/decathlon train build/phantom/frozen --preset tools/phantom-first.toml --out build/phantom/first
	$(BIN)/decathlon phantom build/phantom/data --cases 16 --test 0 --size full --difficulty hard --seed 4
	$(BIN)/decathlon prepare build/phantom/data/Task07_Pancreas --preset tools/phantom.toml --out build/phantom/work
	$(BIN)/decathlon train build/phantom/work --preset tools/phantom.toml --weights build/phantom/first/bundle --out build/phantom/run
	$(BIN)/decathlon tune build/phantom/run/bundle-last --work build/phantom/frozen --out build/phantom/tuned
	$(BIN)/decathlon package build/phantom/tuned --float16 --out algorithm/bundles/phantom \
		--notice "These labels are of a model that was trained on synthetic scans alone: for trying the software, not for patients."

bench-smoke: $(VENV)/bench.stamp
	$(BIN)/pytest benchmarks --bench-all-peers
	$(BIN)/python -m benchmarks.loaders --smoke
	$(BIN)/python -m benchmarks.training --smoke
	$(BIN)/python -m benchmarks.step --smoke
	$(BIN)/python -m benchmarks.inference --smoke --precision float32
	$(BIN)/python -m benchmarks.search --smoke
	$(BIN)/python -m benchmarks.evaluation --smoke
	$(BIN)/pytest tests/benchmarks/test_accuracy_systems.py  # with the peers that `make test` does not install
	$(BIN)/python -m benchmarks.accuracy.run --smoke

check: $(VENV)/dev.stamp
	$(BIN)/python tools/audit.py constraints.txt
	$(BIN)/python tools/audit.py requirements/torch-cuda.txt
	$(BIN)/python tools/pins.py --check
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror csrc/*.cpp csrc/*.hpp
	$(BIN)/cmake -S . -B build/tidy -G Ninja -DVOXELCORE_PORTABLE_FLAGS=ON -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
	    -DPython_EXECUTABLE=$(abspath $(BIN))/python -Dpybind11_DIR="$$($(BIN)/python -m pybind11 --cmakedir)" > build.log \
	    || { cat build.log; exit 1; }
	@rm -f build.log
	printf '%s\n' csrc/*.cpp | xargs -P 2 -n 1 $(BIN)/clang-tidy -p build/tidy --quiet

# Side by side with make --jobs=2: each uses one core most of the time.
sanitize: sanitize-address,undefined sanitize-thread

sanitize-%: $(VENV)/dev.stamp
	PATH="$(abspath $(BIN)):$$PATH" tests/sanitize.sh $*

fuzz: $(VENV)/dev.stamp
	$(BIN)/python -m tests.fuzz

# One process: CI runs it beside the sanitizers.
fuzz-smoke: $(VENV)/dev.stamp
	$(BIN)/python -m tests.fuzz --engines both --scans 560 --seconds 150 --jobs 1 --out build/fuzz-smoke

CALLS ?= 20000
fuzz-kernels: $(VENV)/dev.stamp
	PATH="$(abspath $(BIN)):$$PATH" tests/sanitize.sh address,undefined $(CALLS)

# One thread: the processes are forked, which threads would not survive.
kills: $(VENV)/dev.stamp
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m tests.kills

long-run: $(VENV)/dev.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.long_run

format: $(VENV)/dev.stamp
	$(BIN)/ruff format
	$(BIN)/ruff check --fix
	$(BIN)/clang-format -i csrc/*.cpp csrc/*.hpp

licences: $(VENV)/dev.stamp
	$(BIN)/python tools/licences.py docs/LICENCES.md

pins: $(VENV)/dev.stamp
	$(BIN)/python tools/pins.py

sbom: $(VENV)/dev.stamp
	PYTHON=$(abspath $(BIN))/python tools/sbom.sh build/sbom.json

clean:
	rm -rf build demo $(VENV)
