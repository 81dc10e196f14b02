#!/usr/bin/env bash
# Evaluate on a Slurm cluster.
#   [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS=...] \
#       tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of tools/test.py]
set -euo pipefail
if [ $# -lt 4 ]; then sed -n '2,4s/^# *//p' "$0" >&2; exit 2; fi
here=$(dirname "$(realpath "$0")")
exec "$here/srun.sh" "$1" "$2" "$here/test.py" "$3" "$4" "${@:5}"
