"""What a user writes: tensors, formulas, layers, losses, optimizers, training."""
