"""Training a student towards its teacher and the gold text."""
