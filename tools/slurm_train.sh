#!/usr/bin/env bash
# Train on a Slurm cluster.
#   [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS=...] \
#       tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [arguments of tools/train.py]
set -euo pipefail
if [ $# -lt 4 ]; then sed -n '2,4s/^# *//p' "$0" >&2; exit 2; fi
here=$(dirname "$(realpath "$0")")
exec "$here/srun.sh" "$1" "$2" "$here/train.py" "$3" --work-dir "$4" "${@:5}"
