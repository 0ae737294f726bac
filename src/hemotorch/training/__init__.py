"""The training engine: batches, augmentation, losses, one step, the loop, and how it goes on.

augment   augmentation of whole batches on their device
autotune  what is chosen by measuring before a training starts
batches   prepared dataset to batches on the network's grid; the paper's ICHDataset
kernels/  Triton kernels, each beside its PyTorch reference
learner   one step of the optimiser: eager, compiled or as a CUDA graph, alone or as one of several ranks
loop      the training loop, and how it goes on after it was killed
losses    the losses by name
memory    the largest batch that fits when memory runs out
set_losses  losses whose truth is a set of channels per voxel: the sums they are made of
"""
