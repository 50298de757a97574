"""The engines `vllm` (a child process) and `vllm_server` (HTTP), and what keeps their weights the policy's."""
