#!/usr/bin/env bash
# Everything that needs a CUDA GPU, in one call: benchmarks/gpu.sh [OUT]
#
# 1. the tests of the trainer and the network on the GPU
# 2. how fast the paper's network trains (16 base filters, batches of 64x128x128, mixed precision), eager and compiled: the
#    bare step, and the loop, where its time goes, and what loading costs beside one batch repeated for ever
# 3. the loaders of MONAI and TorchIO beside ours, where they are installed
# 4. with TRAIN=1 the presets on a phantom set
# 5. with ACCURACY=1 the presets, nnU-Net and MONAI on the frozen phantoms, 30 to 45 minutes each in either column; SYSTEMS
#    names fewer, and equal time needs nnunet among them or in OUT/accuracy, which the same command continues. The test
#    cases are scored by hand, with --final.
#
# Results and logs go to OUT (default build/gpu). PYTHON names an interpreter that has torch with CUDA and this package;
# a step that fails is named at the end and does not keep the others from running.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
out=${1:-build/gpu}
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    [ -x .venv/bin/python ] && PYTHON=.venv/bin/python
fi

if ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "benchmarks/gpu.sh needs a CUDA GPU, but $PYTHON finds none: nothing was measured." >&2
    echo "Run it on a machine with one; PYTHON=... names an interpreter whose torch was built for CUDA." >&2
    exit 1
fi
mkdir -p "$out"
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader | tee "$out/gpu.txt"

failed=()
step() {
    local name=$1
    shift
    echo "=== $name"
    "$@" 2>&1 | tee "$out/$name.log"
    [ "${PIPESTATUS[0]}" -eq 0 ] || failed+=("$name")
}

decathlon() {
    "$PYTHON" -c 'import sys; from trainer.cli import main; sys.exit(main())' "$@"
}

presets() {
    decathlon phantom "$out/data" --cases 36 --test 6 --size small --seed 0 || return
    local preset
    for preset in fast paper paper-topk best; do
        decathlon prepare "$out/data/Task07_Pancreas" --preset "$preset" --out "$out/work-$preset" \
            --train-patches 600 --val-patches 60 || return
        decathlon train "$out/work-$preset" --preset "$preset" --out "$out/run-$preset" \
            --set epochs="${EPOCHS:-22}" || return
    done
}

step tests "$PYTHON" -m pytest -q tests/trainer tests/algorithm
step step "$PYTHON" -m benchmarks.step
step speed "$PYTHON" -m benchmarks.training --device cuda --base-filters 16 --batch-sizes 2 4 8 16 --compile \
    --batch-size 8 --steps 30 --out "$out"
if "$PYTHON" -c 'import monai, torchio' 2> /dev/null; then
    step loaders "$PYTHON" -m benchmarks.loaders --device cuda --steps 100 --out "$out"
else
    echo "=== loaders: MONAI or TorchIO is not installed, left out"
fi
if [ "${TRAIN:-0}" = 1 ]; then
    step presets presets
fi

# A system that fails keeps neither the others from running nor what there is from being scored.
accuracy() {
    local systems system status=0
    local command=("$PYTHON" -m benchmarks.accuracy.run "$out/accuracy" --budget gpu --device cuda)
    read -ra systems <<< "${SYSTEMS:-nnunet monai paper paper-topk best best-tuned}"
    for system in "${systems[@]}"; do
        "${command[@]}" --systems "$system" || status=1
    done
    for system in "${systems[@]}"; do
        [ "$system" = nnunet ] || "${command[@]}" --equal time --systems "$system" || status=1
    done
    "$PYTHON" -m benchmarks.accuracy.score "$out/accuracy" --budget gpu --out "$out" || status=1
    return "$status"
}

if [ "${ACCURACY:-0}" = 1 ]; then
    step accuracy accuracy
fi

if [ ${#failed[@]} -gt 0 ]; then
    printf 'failed: %s\n' "${failed[@]}" >&2
    exit 1
fi
