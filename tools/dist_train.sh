#!/usr/bin/env bash
# Train on several GPUs of this machine, or of several machines; without GPUs, on so many processes.
#   tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
# Several machines: run it on each with NNODES, NODE_RANK, MASTER_ADDR and PORT set.
set -euo pipefail
if [ $# -lt 2 ]; then sed -n '2,4s/^# *//p' "$0" >&2; exit 2; fi
here=$(dirname "$(realpath "$0")")
exec "$here/torchrun.sh" "$2" "$here/train.py" "$1" "${@:3}"
