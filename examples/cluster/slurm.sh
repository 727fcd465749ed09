#!/bin/bash
# A command of nasray on nodes of a Slurm cluster, from a checkout whose folder all of them share:
#   sbatch examples/cluster/slurm.sh search maedet-m --folder /shared/runs/maedet-m
#   sbatch examples/cluster/slurm.sh resume /shared/runs/maedet-m
#SBATCH --job-name=nasray
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@300
# Five minutes before the end Slurm sends SIGTERM: nasray saves its state, and `resume` continues it in a further job.
set -euo pipefail

source .venv/bin/activate
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export RAY_ADDRESS=$head:6379
# A Ray listens on all interfaces: only who has this job's token can use it.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python -c "import secrets; print(secrets.token_hex(32))")
export RAY_AUTH_TOKEN

on_nodes() { srun --overlap --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" "$@"; }
on_nodes --nodes=1 --nodelist="$head" \
    env -u RAY_ADDRESS ray start --head --port=6379 --num-cpus="$SLURM_CPUS_PER_TASK" --disable-usage-stats --block &
ray=$!
until ray status --address "$RAY_ADDRESS" >/dev/null 2>&1; do
    kill -0 "$ray" # it has failed, and said why
    sleep 2
done
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
    on_nodes --nodes=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" \
        ray start --address="$RAY_ADDRESS" --num-cpus="$SLURM_CPUS_PER_TASK" --disable-usage-stats --block &
fi

nasray "$@" &
nasray=$!
trap 'kill -TERM "$nasray"' TERM
status=0
wait "$nasray" || status=$?
if kill -0 "$nasray" 2>/dev/null; then # the signal ended the first wait; nasray is saving
    status=0
    wait "$nasray" || status=$?
fi
exit "$status"
