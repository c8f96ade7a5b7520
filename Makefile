# The commands of the project. `make` without a target lists them.
PYTHON ?= python3
VENV ?= .venv
CLANGS := clang clang-19 clang-18 clang-17 clang-16 clang-15 clang-14
CLANG ?= $(firstword $(foreach name,$(CLANGS),$(shell command -v $(name))))
# One version: others format differently.
FORMAT ?= $(shell command -v clang-format-14)
ARGS ?=
# Tests run in this many processes, a file of them in one.
TEST_JOBS ?= 2
# Files in the order of tests/conftest.py, not by how many tests they have.
PARALLEL = -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder
# Builds here leave the CUDA library out unless asked (minutes of nvcc): make build PS3C_CUDA=1.
PS3C_CUDA ?= 0
export PS3C_CUDA
# Tests start Python hundreds of times: compiled modules are kept.
unexport PYTHONDONTWRITEBYTECODE

BIN := $(VENV)/bin
C_FOLDERS := csrc kernels examples tests benchmarks
C_FILES = $(shell find $(C_FOLDERS) -name "*.[ch]" -o -name "*.cu" -o -name "*.cuh" -o -name "*.cpp")
REFERENCE := .cache/reference/.ready
ASAN := build/asan

help:
	@echo "make venv       creates an environment in $(VENV) and builds ps3c in place"
	@echo "make build      compiles what changed"
	@echo "make demo       makes a real-size model with random weights and runs the quick start (demo-output/)"
	@echo "make test       runs all tests; ps3-torch 0.1.3 is installed separately, as the reference."
	@echo "                ARGS='-k words' goes to pytest; tests/README.md says how to run one test"
	@echo "make lint       checks Python (ruff), the formatting of C (clang-format-14), and warnings of gcc and clang"
	@echo "make typecheck  checks the stub of ps3c._core and an example of a user's code (mypy)"
	@echo "make asan       runs the tests with the address and undefined-behaviour sanitizers"
	@echo "make sweep      runs the sweeps of tests/sweeps for longer, with a new seed; SCALE=20 is the length"
	@echo "make planted    plants mistakes, one at a time, and sees that the sweeps catch them"
	@echo "make fuzz       runs the fuzz targets of tests/fuzz with libFuzzer, each for SECONDS=60"
	@echo "make coverage   runs tests with counters and lists the lines of our C that none reaches; minutes"
	@echo "make cuda       builds the CUDA library without a GPU; fails if a kernel spills; writes docs/kernels.md"
	@echo "make real-size  compares models of the published size with ps3-torch (minutes, 20 GB of memory)"
	@echo "make docs       builds the documentation, build/docs/index.html; a warning is an error"
	@echo "make install    installs the C library and ps3c-encode under PREFIX=/usr/local"
	@echo "make wheel      builds an sdist and a manylinux wheel in dist/; with the CUDA library if PS3C_CUDA=1"
	@echo "make clean      removes what was built; 'make distclean' removes the environments too"

# ---- environment and build ------------------------------------------------------------------------------------------

# torch first: a transformers that comes before it would choose its own.
$(VENV)/.ready: tests/requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q "$$(grep '^torch==' tests/requirements.txt)"
	$(BIN)/python -m pip install -q -r tests/requirements.txt
	$(BIN)/python -m pip install -q --no-build-isolation --no-deps -e .
	touch $@

venv: $(VENV)/.ready

# Only what changed is compiled again.
build: venv
	$(BIN)/python setup.py -q build_ext --inplace

$(REFERENCE): $(VENV)/.ready
	rm -rf .cache/reference .cache/reference-packages
	$(BIN)/python -m pip install -q --no-deps --target .cache/reference ps3-torch==0.1.3
	$(BIN)/python -m pip install -q --no-deps --target .cache/reference-packages \
	    timm==1.0.15 einops==0.8.2 torchvision==0.28.0
	touch $@

reference: $(REFERENCE)

# The C library alone: needs no Python.
install:
	+$(MAKE) -C csrc install

# ---- tests ----------------------------------------------------------------------------------------------------------

# $(1): the folder of the objects. A make that runs targets in parallel shares its jobs with this one, if the recipe's
# line begins with +.
tests_c = $(MAKE) -s $(if $(findstring jobserver,$(MAKEFLAGS)),,-j2) --output-sync=target -C tests/c BUILD=$(CURDIR)/$(1)

# The tests' own extension, from the same objects as ps3c._core. Prints its path.
operations: build
	$(BIN)/python setup.py -q build_operations

test: build reference toolkit operations
	+$(call tests_c,build/tests-c) check
	$(BIN)/pytest tests -q $(PARALLEL) $(ARGS)

real-size: build reference
	PS3C_REAL_SIZE=1 $(BIN)/pytest -s tests/test_real_size.py $(ARGS)

# The module is built in a separate folder, which PYTHONPATH puts first. Python itself is not instrumented. So libasan
# must be loaded before it, and libstdc++ with it; otherwise the first C++ exception in torch ends the process. Python's
# allocator would hide errors, so PYTHONMALLOC replaces it. LeakSanitizer is off here, because Python itself leaks;
# the C tests (LeakSanitizer) and tests/test_memory.py (memory in use) detect leaks.
asan: tests-c-asan asan-python
tests-c-asan:
	+$(call tests_c,build/tests-c-asan) SANITIZE=1 check
asan-build: build
	CC=gcc PS3C_SANITIZE=1 $(BIN)/python setup.py -q build --build-lib $(ASAN)
	CC=gcc PS3C_SANITIZE=1 $(BIN)/python setup.py -q build_operations > $(ASAN)/operations.log
asan-python: asan-build reference
	$(SANITIZED) $(BIN)/python -P -c "import ps3c._core as core; assert '$(ASAN)' in core.__file__, core.__file__"
	$(SANITIZED) PS3C_ASAN=1 PS3C_OPERATIONS=$$(tail -n 1 $(ASAN)/operations.log) \
	    $(BIN)/pytest tests -q $(PARALLEL) $(ARGS)

SANITIZED = LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so)" \
	PYTHONMALLOC=malloc PYTHONPATH=$(CURDIR)/$(ASAN) \
	ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1

# As `make test` runs them, SCALE times as long and with another seed, which is printed. PS3C_SWEEP_SEED=N repeats one.
SCALE ?= 10
sweep: build reference toolkit operations
	PS3C_SWEEP=$(SCALE) $(BIN)/pytest tests/sweeps -q $(PARALLEL) $(ARGS)

planted: build reference toolkit operations
	$(BIN)/python tests/sweeps/plant.py $(ARGS)

# The targets with Python find its packages by PYTHONPATH. Python leaks; other targets have LeakSanitizer.
FUZZ := build/fuzz
SECONDS := 60
TARGETS := $(basename $(notdir $(filter-out %/replay.c,$(wildcard tests/fuzz/*.c))))
FUZZ_PYTHON = PYTHONMALLOC=malloc PYTHONPATH=$$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")
fuzz: venv
	$(MAKE) -s -C tests/fuzz -j2 BUILD=$(CURDIR)/$(FUZZ) CC=$(CLANG) LIBFUZZER=1 PYTHON=$(abspath $(BIN)/python)
	@for target in $(TARGETS); do \
	    mkdir -p $(FUZZ)/corpus/$$target || exit 1; leaks=1; most=25; \
	    case $$target in dlpack|module) leaks=0; most=64;; esac; \
	    echo "$$target, $(SECONDS) s"; \
	    ASAN_OPTIONS=allocator_may_return_null=1:max_allocation_size_mb=$$most:detect_leaks=$$leaks $(FUZZ_PYTHON) \
	        $(FUZZ)/$$target -max_total_time=$(SECONDS) -max_len=1024 -timeout=60 -malloc_limit_mb=4096 -rss_limit_mb=4096 \
	        -print_final_stats=1 -verbosity=0 -artifact_prefix=$(FUZZ)/$$target- $(FUZZ)/corpus/$$target || exit 1; \
	done

# Tests with counters of lines. tests/test_cuda_library.py builds the emulator, because a few lines open its library.
COVERAGE := build/coverage
COVERED := tests/operations tests/sweeps tests/user/test_malformed_checkpoints.py \
	$(filter-out $(patsubst %,tests/test_%.py,build c_library cuda_on_cpu parity_cuda \
	python_api real_size rooms tokenizer transformers_matrix),$(wildcard tests/test_*.py))
# tests/c reaches the lines of the large operations sooner. The sweeps that are left out reach no line that other tests
# miss, or run a build without counters.
COVERED_BUT := -k "not cuda or cuda_library" $(patsubst %,--ignore tests/operations/test_%.py,gemm attention layernorm) \
	$(patsubst %,--ignore tests/sweeps/test_%.py,planted exits forks fuzz kill leaks_core leaks_encoder leaks_models \
	leaks_refused nth_file_call signalled_commands signals)
coverage: build reference
	find $(COVERAGE) -name "*.gcda" -delete 2>/dev/null || true
	+$(call tests_c,$(COVERAGE)/tests-c) COVERAGE=1 check
	CC=gcc PS3C_COVERAGE=1 $(BIN)/python setup.py -q build --build-lib $(COVERAGE)/lib --build-temp $(COVERAGE)/temp
	CC=gcc PS3C_COVERAGE=1 $(BIN)/python setup.py -q build_operations --build-temp $(COVERAGE)/temp \
	    > $(COVERAGE)/operations.log
	PS3C_COVERAGE=1 PYTHONPATH=$(CURDIR)/$(COVERAGE)/lib PS3C_OPERATIONS=$$(tail -n 1 $(COVERAGE)/operations.log) \
	    $(BIN)/python -P -m pytest $(COVERED) $(COVERED_BUT) -q $(PARALLEL) $(ARGS)
	$(BIN)/python scripts/coverage.py $(COVERAGE)

# ---- CUDA -----------------------------------------------------------------------------------------------------------

CUDA_BUILD := build/cuda
CUBLAS := .cache/cublas
# The toolkit of this machine, else its compiler and headers from pip.
NVCC_HERE := $(realpath $(firstword $(shell command -v nvcc) /usr/local/cuda/bin/nvcc))
CUDA_HOME ?= $(or $(patsubst %/bin/nvcc,%,$(NVCC_HERE)),$(CURDIR)/.cache/cuda/nvidia/cu13)
CUDA_WHEELS := nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 \
	nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85

$(CUDA_HOME)/bin/nvcc: | $(VENV)/.ready
	$(BIN)/python -m pip install -q --no-deps --target .cache/cuda $(CUDA_WHEELS)
	chmod +x $(CUDA_HOME)/bin/* $(CUDA_HOME)/nvvm/bin/*
toolkit: venv $(CUDA_HOME)/bin/nvcc

$(CUBLAS)/.ready: $(VENV)/.ready
	rm -rf $(CUBLAS)
	$(BIN)/python -m pip install -q --no-deps --target $(CUBLAS) nvidia-cublas==13.1.0.3
	touch $@

# All checks of the CUDA library that need no GPU: it compiles, no kernel spills, our declarations of cuBLASLt agree
# with its header, and cuBLASLt has every function that we look up.
cuda: toolkit $(CUBLAS)/.ready
	NVCC=$(CUDA_HOME)/bin/nvcc PS3C_CUDA=1 PS3C_CUDA_VERBOSE=1 $(BIN)/python setup.py -q \
	    build_cuda --build-lib $(CUDA_BUILD) --build-temp $(CUDA_BUILD)/objects
	$(CUDA_HOME)/bin/nvcc -std=c++17 -arch=sm_80 -I$(CUBLAS)/nvidia/cu13/include \
	    -c kernels/cuda/cublaslt_check.cu -o $(CUDA_BUILD)/cublaslt_check.o
	$(BIN)/python scripts/cuda_kernels.py $(CUDA_BUILD)/objects $(if $(PS3C_CUDA_ARCHITECTURES),,--write docs/kernels.md) \
	    --library $(CUDA_BUILD)/ps3c/libps3c_cuda.so --cublaslt $(CUBLAS)/nvidia/cu13/lib/libcublasLt.so.13

# ---- demo -----------------------------------------------------------------------------------------------------------

DEMO := demo-output
CHECKPOINT := $(DEMO)/PS3-1.5K-SigLIP2
PHOTOGRAPH = $$($(BIN)/python -c "import matplotlib; print(matplotlib.get_data_path())")/sample_data/grace_hopper.jpg

demo: build
	$(BIN)/python examples/make_checkpoint.py $(CHECKPOINT)
	$(BIN)/python examples/quickstart.py $(CHECKPOINT) --output $(DEMO)
	$(BIN)/ps3c info $(CHECKPOINT)
	$(BIN)/ps3c look "$(PHOTOGRAPH)" -m $(CHECKPOINT) --looks 3 --kind patches --force -o $(DEMO)/looks.png
	$(BIN)/ps3c embed "$(PHOTOGRAPH)" -m $(CHECKPOINT) --looks 1 --tokens --maps --force \
	    -o $(DEMO)/features.safetensors
	@echo; echo "pictures and features: $(DEMO)"

# ---- documentation --------------------------------------------------------------------------------------------------

$(VENV)/.docs: $(VENV)/.ready docs/requirements.txt
	$(BIN)/python -m pip install -q -r docs/requirements.txt
	touch $@

docs: build $(VENV)/.docs
	$(BIN)/python -m sphinx -b html -W --keep-going -d build/docs-doctrees docs build/docs

# ---- lint -----------------------------------------------------------------------------------------------------------

# Notebooks are not checked. The first build shares the objects of `make build`: neither compiles what the other has.
lint: venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
ifneq ($(FORMAT),)
	$(FORMAT) --dry-run -Werror $(C_FILES)
else
	@echo "lint: no clang-format-14 here; the formatting of C was not checked"
endif
	PS3C_WERROR=1 $(BIN)/python setup.py -q build_ext --build-lib build/lint build_operations
ifneq ($(CLANG),)
	CC=$(CLANG) PS3C_WERROR=1 $(BIN)/python setup.py -q \
	    build_ext --build-lib build/lint-clang --build-temp build/lint-clang \
	    build_operations --build-temp build/lint-clang
else
	@echo "lint: no clang here; warnings were checked with gcc alone"
endif

typecheck: build
	$(BIN)/python -m mypy.stubtest ps3c._core --mypy-config-file tests/typing/mypy.ini
	$(BIN)/python -m mypy --config-file tests/typing/mypy.ini tests/typing/consumer.py

# ---- wheel ----------------------------------------------------------------------------------------------------------

wheel: build
	$(BIN)/python scripts/wheel.py

clean:
	rm -rf build dist *.egg-info ps3c/*.so $(DEMO) .pytest_cache .hypothesis .mypy_cache
	find ps3c python tests examples -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) .venv-* .cache

.PHONY: help venv build install toolkit reference operations test real-size asan tests-c-asan asan-build asan-python sweep planted \
	fuzz coverage cuda demo docs lint typecheck wheel clean distclean
