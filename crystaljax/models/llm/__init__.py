"""Language models of the Hugging Face families Llama, Gemma-2, OLMo-2 and Qwen-2 in Flax NNX."""
