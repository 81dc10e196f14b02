#!/usr/bin/env bash
# Evaluate on several GPUs of this machine, or of several machines; without GPUs, on so many processes.
#   tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]
# Several machines: run it on each with NNODES, NODE_RANK, MASTER_ADDR and PORT set.
set -euo pipefail
if [ $# -lt 3 ]; then sed -n '2,4s/^# *//p' "$0" >&2; exit 2; fi
here=$(dirname "$(realpath "$0")")
exec "$here/torchrun.sh" "$3" "$here/test.py" "$1" "$2" "${@:4}"
