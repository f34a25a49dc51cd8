#!/usr/bin/env bash
# examples/slurm on a Slurm that this machine may happen to have; exit 77 where it has none.
#     slurm_test.sh MOAT EXAMPLE
set -eu
moat=$1
example=$(realpath "$2")
if ! command -v sbatch >/dev/null || ! sinfo >/dev/null 2>&1; then
    echo "SKIPPED: no Slurm runs here (slurm-wlm with slurmctld, slurmd and munge)"
    exit 77
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
MOAT=$moat sbatch --wait --export=ALL "$example"
"$moat" explore --merge shard_*.json | tee sum.json
grep -q '"executions":7628' sum.json
