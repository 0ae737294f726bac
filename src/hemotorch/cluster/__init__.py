"""The same `train` on more than one process: started by torchrun, by SLURM or by Ray. And Ray for archives of scans."""
