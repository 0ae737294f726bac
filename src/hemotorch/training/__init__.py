"""Training: the loop, what it moves on, what it is fed with, and how it goes on after it was killed.

augment      augmentation of whole batches on their device
autotune     what is chosen by measuring before a training starts
base_weights the trained network that a training begins with
batches      which slices make a batch, and the batches of an epoch on the device
job          what a training is made of and does not change: recipe, slices, plan of batches, loss, network
kernels/     Triton kernels, each beside its PyTorch reference
learner      network, average and optimiser; a step eager, compiled or as a CUDA graph, alone or as one of several ranks
loop         the training loop from top to bottom: batches, forward, loss, backward, update, validation
losses       the losses by name
memory       the largest batch that fits when memory runs out
optimizer    the optimisers by name, and the learning rate of each step
png_pairs    the 2021 paper's dataset class, on folders of PNGs
resume       how a run begins, or goes on after it was killed
seen_heads   what the heads that are trained on look like
set_losses   losses whose truth is a set of channels per voxel: the sums they are made of
slices       the slices that are trained on, HU and target on the network's grid
state        all that changes while training, and the checkpoints of it
task_choice  what a training's network answers: bleeding or not, or its types
"""
