# ps3c: what there is to do. `make` alone says it.
PYTHON ?= python3
VENV ?= .venv
CLANG ?= $(firstword $(foreach name,clang clang-19 clang-18 clang-17 clang-16 clang-15 clang-14,$(shell command -v $(name))))
FORMAT ?= $(firstword $(foreach name,clang-format-14,$(shell command -v $(name))))
ARGS ?=
# Tests run in this many processes, a file of them in one.
TEST_JOBS ?= 2
# Files in the order of tests/conftest.py, not by how many tests they have.
PARALLEL = -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder
# Builds here leave the CUDA library out unless asked (minutes of nvcc): make build PS3C_CUDA=1.
PS3C_CUDA ?= 0
export PS3C_CUDA

BIN := $(VENV)/bin
C_FILES = $(shell find csrc kernels examples tests -name "*.[ch]" -o -name "*.cu" -o -name "*.cuh" -o -name "*.cpp")
REFERENCE := .cache/reference/.ready
ASAN := build/asan

help:
	@echo "make venv       environment in $(VENV), with ps3c built in place"
	@echo "make demo       a real-size model with random weights, and the quick start on a photograph (demo-output/)"
	@echo "make test       all tests, ps3-torch 0.1.3 aside as the reference; ARGS='-k words' goes to pytest"
	@echo "make docs       the documentation, build/docs/index.html; a warning is an error"
	@echo "make real-size  the published models' size against ps3-torch, once (minutes, 20 GB)"
	@echo "make asan       tests on a build with the address and undefined-behaviour sanitizers"
	@echo "make cuda       the CUDA library for all architectures, without spills; docs/kernels.md; no GPU needed"
	@echo "make lint       formatting, and a build without warnings by Python's compiler and by clang"
	@echo "make typecheck  the stub of ps3c._core against the module, and a user's code against the package, by mypy"
	@echo "make wheel      sdist and manylinux wheel in dist/; with the CUDA library when PS3C_CUDA=1"
	@echo "make clean      removes what was built; 'make distclean' the environments too"

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
	$(BIN)/python -m pip install -q --no-deps --target .cache/reference-packages timm==1.0.15 einops==0.8.2 torchvision==0.28.0
	touch $@

reference: $(REFERENCE)

# ---- tests ----------------------------------------------------------------------------------------------------------

# The tests' own extension, from the same objects as ps3c._core. Prints its path.
operations: build
	$(BIN)/python setup.py -q build_operations

test: build reference toolkit operations
	$(MAKE) -s -C tests/c BUILD=$(CURDIR)/build/tests-c check
	$(BIN)/pytest tests -q $(PARALLEL) $(ARGS)

real-size: build reference
	PS3C_REAL_SIZE=1 $(BIN)/pytest -s tests/test_real_size.py $(ARGS)

# The module is built apart and found first through PYTHONPATH. Python itself is not instrumented. So libasan has to be
# loaded before it, and libstdc++ with it, or the first C++ exception in torch ends the process. Python's allocator would
# hide errors. Leaks are detected by the C tests (LeakSanitizer) and by tests/test_memory.py (memory in use): Python's own
# are too many.
asan: build reference
	$(MAKE) -s -C tests/c BUILD=$(CURDIR)/build/tests-c-asan SANITIZE=1 check
	CC=gcc PS3C_SANITIZE=1 $(BIN)/python setup.py -q build --build-lib $(ASAN)
	CC=gcc PS3C_SANITIZE=1 $(BIN)/python setup.py -q build_operations > $(ASAN)/operations.log
	$(SANITIZED) $(BIN)/python -P -c "import ps3c._core as core; assert '$(ASAN)' in core.__file__, core.__file__"
	$(SANITIZED) PS3C_ASAN=1 PS3C_OPERATIONS=$$(tail -n 1 $(ASAN)/operations.log) $(BIN)/pytest tests -q $(PARALLEL) $(ARGS)

SANITIZED = LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so)" PYTHONMALLOC=malloc PYTHONPATH=$(CURDIR)/$(ASAN) \
	ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1

# ---- CUDA -----------------------------------------------------------------------------------------------------------

CUDA_BUILD := build/cuda
CUBLAS := .cache/cublas
# The toolkit of this machine, else its compiler and headers from pip.
CUDA_HOME ?= $(or $(patsubst %/bin/nvcc,%,$(realpath $(firstword $(shell command -v nvcc) /usr/local/cuda/bin/nvcc))),$(CURDIR)/.cache/cuda/nvidia/cu13)
CUDA_WHEELS := nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85

$(CUDA_HOME)/bin/nvcc:
	$(BIN)/python -m pip install -q --no-deps --target .cache/cuda $(CUDA_WHEELS)
	chmod +x $(CUDA_HOME)/bin/* $(CUDA_HOME)/nvvm/bin/*
toolkit: venv $(CUDA_HOME)/bin/nvcc

$(CUBLAS)/.ready: $(VENV)/.ready
	rm -rf $(CUBLAS)
	$(BIN)/python -m pip install -q --no-deps --target $(CUBLAS) nvidia-cublas==13.1.0.3
	touch $@

# Everything that a machine without a GPU can say: it compiles, nothing spills, our declarations of cuBLASLt are its own,
# and every function looked up in it is there.
cuda: toolkit $(CUBLAS)/.ready
	NVCC=$(CUDA_HOME)/bin/nvcc PS3C_CUDA=1 PS3C_CUDA_VERBOSE=1 $(BIN)/python setup.py -q build_cuda --build-lib $(CUDA_BUILD) --build-temp $(CUDA_BUILD)/objects
	$(CUDA_HOME)/bin/nvcc -std=c++17 -arch=sm_80 -I$(CUBLAS)/nvidia/cu13/include -c kernels/cuda/cublaslt_check.cu -o $(CUDA_BUILD)/cublaslt_check.o
	$(BIN)/python scripts/cuda_kernels.py $(CUDA_BUILD)/objects $(if $(PS3C_CUDA_ARCHITECTURES),,--write docs/kernels.md) \
	    --library $(CUDA_BUILD)/ps3c/libps3c_cuda.so --cublaslt $(CUBLAS)/nvidia/cu13/lib/libcublasLt.so.13

# ---- demo -----------------------------------------------------------------------------------------------------------

DEMO := demo-output
CHECKPOINT := $(DEMO)/PS3-1.5K-SigLIP2
PHOTOGRAPH = $(BIN)/python -c "import matplotlib; print(matplotlib.get_data_path())"

demo: build
	$(BIN)/python examples/make_checkpoint.py $(CHECKPOINT)
	$(BIN)/python examples/quickstart.py $(CHECKPOINT) --output $(DEMO)
	$(BIN)/ps3c info $(CHECKPOINT)
	$(BIN)/ps3c look "$$($(PHOTOGRAPH))/sample_data/grace_hopper.jpg" -m $(CHECKPOINT) --looks 3 --kind patches --force -o $(DEMO)/looks.png
	$(BIN)/ps3c embed "$$($(PHOTOGRAPH))/sample_data/grace_hopper.jpg" -m $(CHECKPOINT) --looks 1 --tokens --maps --force -o $(DEMO)/features.safetensors
	@echo; echo "pictures and features: $(DEMO)"

# ---- documentation --------------------------------------------------------------------------------------------------

$(VENV)/.docs: $(VENV)/.ready docs/requirements.txt
	$(BIN)/python -m pip install -q -r docs/requirements.txt
	touch $@

docs: build $(VENV)/.docs
	$(BIN)/python -m sphinx -b html -W --keep-going -d build/docs-doctrees docs build/docs

# ---- lint -----------------------------------------------------------------------------------------------------------

# The first build shares the objects of `make build`: neither compiles what the other has.
lint: venv
ifneq ($(FORMAT),)
	$(FORMAT) --dry-run -Werror $(C_FILES)
else
	@echo "lint: no clang-format-14 here, formatting not checked"
endif
	PS3C_WERROR=1 $(BIN)/python setup.py -q build_ext --build-lib build/lint build_operations
ifneq ($(CLANG),)
	CC=$(CLANG) PS3C_WERROR=1 $(BIN)/python setup.py -q build_ext --build-lib build/lint-clang --build-temp build/lint-clang \
	    build_operations --build-temp build/lint-clang
else
	@echo "lint: no clang here, warnings checked with gcc alone"
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

.PHONY: help venv build toolkit reference operations test real-size asan cuda demo docs lint typecheck wheel clean distclean
