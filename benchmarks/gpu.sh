#!/usr/bin/env bash
# Runs, a comparison with the CPU, tables and a profile on a machine with a GPU, in one file, in less than ten minutes:
#
#     benchmarks/gpu.sh gpu.md [PYTHON WITH TORCH AND TIMM]
#
# Each of fourteen parts has 39 seconds at most. A part that fails says so in the file, and the others still run.
set -uo pipefail
output=$(realpath "${1:?a file to write}")
peer=${2:-}
cd "$(dirname "$0")/.."
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT
export XLA_PYTHON_CLIENT_PREALLOCATE=false # or one process takes most of the memory

part() { # prints a heading and the end of what a command prints
    local name=$1 began=$SECONDS
    shift
    printf '\n## %s\n\n' "$name"
    timeout -k 3 39 "$@" 2>"$runs/errors" || { echo "failed:" && tail -n 5 "$runs/errors"; }
    printf '\n%s s: `%s`\n' $((SECONDS - began)) "${*//$runs/runs}"
}
train() { # trains a config and prints its accuracy and speed
    local name=$1
    shift
    python train.py "$@" --workdir "$runs/$name" >"$runs/output" || return
    grep -E "^Overall accuracy|images/s$" "$runs/output"
}
export -f train
export runs

{
    echo "# $(date -u +%F): $(nvidia-smi --query-gpu=name,memory.total --format=csv,noheader 2>/dev/null || echo no GPU)"
    part "Versions" python -c 'import sys, jax; print(sys.version.split()[0], "jax", jax.__version__, jax.devices())'
    for input in host device; do
        for config in mnist_linear mnist_cnn; do
            part "$config, --input $input" bash -c "train ${config}_$input $config --input $input"
        done
        part "Waiting for data, --input $input" python benchmarks/loop_costs.py --repeats 5 --input "$input"
    done
    for platform in "" cpu; do
        part "Test accuracy of mnist_cnn on ${platform:-the default device}" env JAX_PLATFORMS="$platform" \
            bash -c 'python eval.py "$runs/mnist_cnn_host" | grep -E "^Overall accuracy|^Loss"'
    done
    part "Without command buffers" env XLA_FLAGS=--xla_gpu_enable_command_buffer= bash -c "train eager mnist_cnn --input device"
    part "bfloat16" bash -c "train bfloat16 mnist_cnn --model.dtype bfloat16"
    part "Networks" python benchmarks/networks.py --repeats 5 ${peer:+--torch-python "$peer"}
    part "Saliency" python benchmarks/saliency.py "$runs/mnist_cnn_host" --repeats 5
    part "Profile of 20 steps" bash -c "train profiled mnist_cnn --profile 200:220 && python benchmarks/summarize_trace.py \$runs/profiled"
} | tee "$output"
