"""The training loop that teachers and students share: the Hugging Face Trainer with our batches, optimizer and EMA."""
