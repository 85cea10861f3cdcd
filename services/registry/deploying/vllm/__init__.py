"""The driver `vllm`: adapters are loaded into, and whole models found on, the vLLM servers that the operator runs."""
