#!/bin/bash
# Training as a Slurm job. Arguments after the script are added to the command:
#   sbatch .github/cluster/slurm.sh --case cs train.seed=1
# Set the #SBATCH lines and the environment; for --recipe, remove '--case cv' at the end. Submit it again
# to resume; a requeued job resumes automatically.
#SBATCH --job-name=sgn
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --exclusive
#SBATCH --time=08:00:00
#SBATCH --requeue
# Exclusive, because symmetric-run stops all your Ray processes on the node when it ends.
set -euo pipefail

# The environment that sgnray is installed in, on a disk that all nodes share.
source .venv/bin/activate

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
# /tmp/ray may contain another user's files. Ray's socket paths have a length limit, so keep it short.
export RAY_TMPDIR=/tmp/ray-$SLURM_JOB_ID
# A token of this job alone. Without it, only the first node would require one if ~/.ray/auth_token exists,
# as after sgn demo, and the others could not join.
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token

# Ray starts on every node, and sgn on the first one, where it finds Ray and waits for the others.
# Without --gpus-per-node, each node has one worker, which takes all of its CPUs, unless you choose --workers
# or --seeds yourself.
# Without --cpus-per-task, srun would bind all of it to one core. Do not use --min-nodes: Ray 2.60
# then exits with code 1 even if the command succeeded.
gpus=${SLURM_GPUS_ON_NODE:-0}
[[ $gpus -gt 0 || " $*" == *" --workers"* || " $*" == *" --seeds"* ]] ||
    set -- --cpus-per-worker "$SLURM_CPUS_ON_NODE" "$@"
srun --cpus-per-task="$SLURM_CPUS_ON_NODE" \
    ray symmetric-run --address "$head:6379" --num-cpus "$SLURM_CPUS_ON_NODE" \
    --disable-usage-stats -- \
    sgn train --case cv --workers "$((SLURM_JOB_NUM_NODES * (gpus > 0 ? gpus : 1)))" "$@"
