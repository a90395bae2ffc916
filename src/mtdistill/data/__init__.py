"""Text in, tokenised and packed batches out."""
