"""Parts of the training loop: checkpoints, random streams, progress, TensorBoard, and the model's files."""
