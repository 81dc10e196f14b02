#!/usr/bin/env bash
# Start PROCESSES copies of a Python tool on every machine of a job; called by dist_train.sh and dist_test.sh.
#   tools/torchrun.sh PROCESSES TOOL.py [its arguments]
set -euo pipefail
if ! [[ "$1" =~ ^[1-9][0-9]*$ ]]; then
    echo "error: $1 processes: expected a whole number from 1" >&2
    exit 2
fi
if [ "${NNODES:-1}" = 1 ] && [ -z "${PORT:-}" ]; then
    rendezvous=(--standalone)  # takes a free port, so that two jobs on one machine do not clash
else
    rendezvous=(--nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}"
                --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}")
fi
exec "${PYTHON:-python}" -m torch.distributed.run "${rendezvous[@]}" --nproc_per_node="$1" \
    "${@:2}" --launcher pytorch
