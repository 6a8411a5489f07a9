#!/bin/bash
# Training as a Slurm job. What follows the script's name is added to the command:
#   sbatch .github/cluster/slurm.sh --case cs train.seed=1
# Set the lines below. Submit it again to resume; a job that Slurm requeues resumes by itself.
#SBATCH --job-name=sgn
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --exclusive
#SBATCH --time=08:00:00
#SBATCH --requeue
# Exclusive: at its end, symmetric-run stops every Ray of yours on the node.
set -euo pipefail

# The environment that sgnray is installed in, on a disk that all nodes have.
source .venv/bin/activate

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
# Another user's files may be in /tmp/ray. A short path: those of Ray's sockets have a limit.
export RAY_TMPDIR=/tmp/ray-$SLURM_JOB_ID

# Ray starts on every node, and sgn on the first one, where it finds Ray and waits for the others.
# Without --cpus-per-task, srun would bind all of it to one core. Not with --min-nodes: then Ray 2.60
# ends with exit code 1 even where the command succeeded.
srun --cpus-per-task="$SLURM_CPUS_ON_NODE" \
    ray symmetric-run --address "$head:6379" --num-cpus "$SLURM_CPUS_ON_NODE" \
    --disable-usage-stats -- \
    sgn train --case cv --workers "$((SLURM_JOB_NUM_NODES * SLURM_GPUS_ON_NODE))" "$@"
