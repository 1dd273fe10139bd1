"""Scripts that the tests here run in processes of their own; importing them sets an engine up."""

collect_ignore = ["rules.py", "sglang_machinery.py", "vllm_machinery.py", "vllm_moving.py"]
