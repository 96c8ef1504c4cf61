"""Documents to tokens: tokenizer, token stream in mapped shards, the order in which training reads it, batches."""
