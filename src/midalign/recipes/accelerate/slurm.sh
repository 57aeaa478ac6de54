#!/bin/bash
# Two machines of four GPUs each under SLURM: sbatch recipes/accelerate/slurm.sh RECIPE OUT
# A job that is cut off goes on from its last whole checkpoint when it is submitted again.
#SBATCH --job-name=midalign
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=08:00:00
#SBATCH --requeue
set -euo pipefail

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun bash -c "accelerate launch \
  --config_file recipes/accelerate/fsdp2.yaml \
  --num_machines $SLURM_NNODES --num_processes $((SLURM_NNODES * 4)) --machine_rank \$SLURM_NODEID \
  --main_process_ip $head --main_process_port 29500 \
  -m midalign train $1 --out $2"
