#!/usr/bin/env bash
# What only a GPU can show, each result written into OUT as soon as it is there. Run it from the repository's root.
#
#     benchmarks/gpu.sh OUT                 # all of it
#     benchmarks/gpu.sh OUT tests paper     # some of it: tests paper bench kernels
#
# tests: tests/test_cuda.py and the kernels'. paper: the whole `paper` training, some 254 slices of 512 x 512, timed.
# bench: the whole bench of it, batches of 32 among it. kernels: hemotorch's own against torch.compile.
# PYTHON=python3 for another interpreter than the environment's.
set -uo pipefail
out=${1:?folder for the results}
shift
mkdir -p "$out"
python=${PYTHON:-.venv/bin/python}
export PYTHONUNBUFFERED=1 PYTHONPATH=src${PYTHONPATH:+:$PYTHONPATH}

hemotorch() { "$python" -m hemotorch.cli "$@"; }

data() {
    [ -f "$out/prepared/dataset.json" ] && return
    hemotorch phantom "$out/ct" --preset ct-ich --patients 49 && hemotorch prepare "$out/ct" "$out/prepared"
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv | tee "$out/gpu.csv"
for step in "${@:-tests paper bench kernels}"; do
    for name in $step; do
        began=$SECONDS
        case $name in
            tests) "$python" -m pytest -v --durations=10 tests/test_cuda.py tests/test_kernels_*.py -k "cuda or gpu" ;;
            paper) data && hemotorch train "$out/prepared" "$out/paper" --recipe paper --device cuda ;;
            bench) data && hemotorch bench train --data "$out/prepared" --device cuda --sweep batch=32 --rounds 2 --out "$out/train" ;;
            kernels) "$python" benchmarks/kernels.py --json "$out/kernels.json" ;;
            *) echo "no step '$name'" && false ;;
        esac 2>&1 | tee "$out/$name.log"
        echo "$name: status ${PIPESTATUS[0]}, $((SECONDS - began)) s" | tee -a "$out/steps.log"
    done
done
