"""How an ingest behaves as its folder grows: a bench that runs the real service around a stand-in network.

    make bench-scale ARGS="--sizes 10k,100k,1M --json scale.json"

A real Valkey server, real Celery workers, the real planner, a real Milvus Lite, a real tree of files (hard links). What
stands in: the network, which returns sixteen bytes of an image, and by default the decoder's codec, which makes up
those bytes from the file's address instead of decoding; the child processes, the pipes and the shared memory are real.
"""
