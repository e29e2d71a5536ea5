"""Fine-tuning a transformer: its weights and tokenizer, windows over long sentences, the loop, predicting."""
