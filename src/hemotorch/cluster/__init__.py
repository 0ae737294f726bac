"""The same `train` on more than one process, started by torchrun, by SLURM or by Ray; and archives of scans with Ray.

archive   an archive of scans, predicted with Ray Data
ray       Ray itself, and Ray Train
slurm     the SLURM batch script
torchrun  several ranks on this machine
training  what an engine starts on each rank, and how many there can be
"""
