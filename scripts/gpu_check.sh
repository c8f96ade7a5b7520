#!/usr/bin/env bash
# Runs all checks that need a real GPU, in at most nine minutes. It builds for the GPU, compares the emulator's warp
# instructions with the hardware's, runs each operation and the GPU tests against ps3-torch, then compute-sanitizer on
# tiny models, and the GPU benchmark in the remaining time.
#
#   scripts/gpu_check.sh
#
# It needs an NVIDIA GPU with its driver, nvcc, gcc, and a Python with torch for CUDA, transformers, torchvision,
# einops, ftfy, pytest, setuptools and numpy. timm 1.0.15 and ps3-torch 0.1.3 must be on PYTHONPATH, or ps3-torch in the
# folder PS3C_REFERENCE (`pip install --no-deps --target FOLDER ps3-torch==0.1.3`). It builds in place.
#
#   PYTHON=python3     the Python to use
#   LIMIT=530          total time limit in seconds
#   STEPS="..."        steps to run: build layouts operations tests sanitizer benchmark (default: all)
#   OUT=folder         logs, test results and gpu.json also go there
#   PS3C_CUDA_ARCHITECTURES=sm_90a   architectures to compile for (default: that of the GPU)
#
# A failed step does not stop the later ones. The exit status is 0 if all steps passed.
set -uo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
LIMIT=${LIMIT:-530}
STEPS=${STEPS:-build layouts operations tests sanitizer benchmark}
LOGS=${OUT:-build/gpu-check}
mkdir -p "$LOGS"
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD:$PWD/python${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1
export PATH="$PATH:/usr/local/cuda/bin"
begin=$SECONDS
failed=()

# ps3-torch is in PS3C_REFERENCE, in .cache/reference (made by make reference), or in a folder of PYTHONPATH.
if [ -z "${PS3C_REFERENCE:-}" ] && [ ! -d .cache/reference ]; then
    for folder in ${PYTHONPATH//:/ }; do
        if [ -f "$folder/ps3/modeling_ps3.py" ] && [ -d "$(echo "$folder"/ps3_torch-*.dist-info)" ]; then
            export PS3C_REFERENCE=$folder
        fi
    done
fi

left() { echo $((LIMIT - (SECONDS - begin))); }

# run NAME SECONDS COMMAND...: runs a command within SECONDS and the remaining total time. A log gets its output, too.
run() {
    local name=$1 most=$2 rest status started=$SECONDS
    shift 2
    rest=$(left)
    [ "$rest" -lt "$most" ] && most=$rest
    if [ "$most" -lt 5 ]; then
        echo "== $name: skipped, no time left"
        failed+=("$name (no time)")
        return 1
    fi
    echo "== $name (at most $most s): $*"
    timeout --kill-after=5 "$most" "$@" 2>&1 | tee "$LOGS/$name.log"
    status=${PIPESTATUS[0]}
    echo "== $name: status $status after $((SECONDS - started)) s"
    [ "$status" -eq 0 ] || failed+=("$name (status $status)")
    return "$status"
}

wants() { [[ " $STEPS " == *" $1 "* ]]; }

nvidia-smi --query-gpu=name,driver_version,memory.total,compute_cap --format=csv,noheader || failed+=("nvidia-smi")
git log -1 --format='commit %h %s' 2>/dev/null || true

if [ -z "${PS3C_CUDA_ARCHITECTURES:-}" ]; then
    capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d '. ')
    case "$capability" in
    90) PS3C_CUDA_ARCHITECTURES=sm_90a ;;
    '') PS3C_CUDA_ARCHITECTURES=sm_80 ;;
    *) PS3C_CUDA_ARCHITECTURES=sm_$capability ;;
    esac
fi
export PS3C_CUDA=1 PS3C_CUDA_ARCHITECTURES PS3C_JOBS=${PS3C_JOBS:-$(nproc)}

if wants build; then
    run build 150 "$PYTHON" setup.py -q build_ext --inplace build_operations
    run import 60 "$PYTHON" -c "
import torch, ps3c
from ps3c import _core
assert _core.cuda_error() is None, _core.cuda_error()
print(ps3c.__file__, _core.cpu_level(), torch.__version__, torch.cuda.get_device_name())" ||
        STEPS=layouts # the other steps need the module
fi
if wants layouts; then
    run layouts 60 "$PYTHON" -m pytest -q -p no:cacheprovider tests/gpu/test_gpu_layouts.py
fi
if wants operations; then
    run operations 100 "$PYTHON" -m pytest -q -p no:cacheprovider -k cuda --maxfail=30 --durations=5 \
        --junitxml="$LOGS/operations.xml" tests/operations
fi
if wants tests; then
    run behaviour 120 "$PYTHON" -m pytest -q -p no:cacheprovider --maxfail=10 --durations=5 \
        --junitxml="$LOGS/behaviour.xml" tests/gpu/test_gpu_run.py
    run parity 200 "$PYTHON" -m pytest -q -p no:cacheprovider --maxfail=30 --durations=5 \
        --junitxml="$LOGS/parity.xml" tests/gpu/test_gpu_parity.py
    run real-size 120 "$PYTHON" -m pytest -q -s -p no:cacheprovider --junitxml="$LOGS/real-size.xml" \
        tests/gpu/test_gpu_real_size.py
fi
if wants sanitizer; then
    if command -v compute-sanitizer >/dev/null; then
        # Without torch's cache every tensor is a separate allocation, so an out-of-bounds access is detected.
        PYTORCH_NO_CUDA_MEMORY_CACHING=1 run memcheck 90 compute-sanitizer --tool memcheck --error-exitcode 9 \
            --print-limit 20 "$PYTHON" scripts/gpu_tiny.py
        run racecheck 90 compute-sanitizer --tool racecheck --error-exitcode 9 --print-limit 20 \
            "$PYTHON" scripts/gpu_tiny.py 2
    else
        echo "== sanitizer: skipped, compute-sanitizer is not installed"
    fi
fi
if wants benchmark; then
    rest=$(($(left) - 5))
    # Every row is written at once, so an interrupted run loses only the current row.
    run benchmark "$rest" "$PYTHON" benchmarks/gpu.py --budget "$((rest > 40 ? rest - 30 : rest / 2))" \
        --json "$LOGS/gpu.json"
fi

echo "== done after $((SECONDS - begin)) s"
if [ ${#failed[@]} -gt 0 ]; then
    printf '== failed: %s\n' "${failed[@]}"
    exit 1
fi
echo "== all passed"
