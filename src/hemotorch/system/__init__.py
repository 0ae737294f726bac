"""The machine underneath: files, processors, progress, devices, and the processes that train together.

arrays       how much of a mask lies on each slice, and the box around it
device       where and how a network computes: cpu or cuda, precision, compile, each with its reason
doctor       what this machine has and lacks, with the command that mends each
engine       what a recipe asks of the machine
events       progress and messages as one stream, and who listens to it
extras       what is not installed with the core, and which install brings it
files        files written whole or not at all, locks, output folders, digests, names, cells of CSV
lazy_imports  modules that libraries import and hemotorch does not use: imported on first use
limits       how many voxels and bytes a file may ask for
machine      cores and memory that this process may use, containers and batch systems included
metrics      what is measured in an epoch of a training: a row of metrics.jsonl
onnx_file    reads an ONNX file's notes, and looks through it before onnxruntime does
rank_sum     the sum over all ranks, and its gradient
ranks        the processes that train together: what they add up, and what is said when one is lost
records      typed records, and how they are read and written
tensor_file  reads checkpoints without torch's unpickler
threads      how many threads compute, and how they wait for one another
"""
