"""The engine on Ray Data. Only this folder imports Ray.

engine.py          RayEngine: a spec in, an execution out
graph.py           the spec as a Ray Data graph
worker.py          one step's stages in a worker process
pools.py           how many actors a pool has, and of how many CPUs
cluster.py         the cluster: joined or started; its nodes; a run that has no room left
sink.py            the shard writer as a Ray Data sink
counter.py         an actor that all workers report to: progress, memory, errors
crash_journal.py   what an encoder's process was working on when it died
"""
