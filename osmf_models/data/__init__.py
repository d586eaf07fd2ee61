"""Reading a training export into batches of tensors."""
