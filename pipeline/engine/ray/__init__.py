"""The engine on Ray Data.

Modules outside of this folder do not import Ray at their top level: `dataset` imports it inside of `to_ray` and
`ray_collate`.

engine.py          RayEngine: runs a spec on a cluster
graph.py           the spec as a Ray Data graph
worker.py          one step's stages in a worker process
pools.py           how many actors a pool has, and their CPUs and GPUs
_placement.py      whether actors fit on the nodes, wherever Ray places them
cluster.py         joins or starts a cluster, waits for its nodes, ends a run without room
nodes.py           what the nodes of the cluster have, and what they did
preflight.py       checks every node before a run
late_check.py      checks a node that joins during a run
_session.py        folder and token of a Ray that this process starts
sink.py            the shard writer as a Ray Data sink
metrics.py         passes metrics to the agents of the nodes
counter.py         the actor that all workers report to: progress, memory, deaths, errors
"""
