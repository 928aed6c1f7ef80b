"""What runs a spec of stages: where and when a block runs, never what comes out.

progress.py   what a person sees meanwhile
memory.py     memory of this process and its children
ray/          the engine on Ray Data, for clusters and pools of GPU actors

It imports `stages`, `sandbox` and everything below them.
"""
