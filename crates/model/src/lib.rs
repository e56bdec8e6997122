//! Llama-family models: configuration, weights, layers, KV cache, generation.
