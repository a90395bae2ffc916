"""Text in, tokenised and length-bucketed batches out."""
