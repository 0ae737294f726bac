"""The training engine: batches, augmentation, losses, one step, the loop, and how it goes on."""
