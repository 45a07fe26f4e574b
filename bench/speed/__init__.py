"""How fast the service is, beside what its users would pick instead and beside what the machine can do.

    make bench ARGS="ingest-1.5 search-10k --json speed.json"

Runs the real service as `lookalike up` starts it, with seeded, untrained weights, which take as long as trained ones.
What is compared is interleaved, turn by turn, in one sitting. A ratio is the median of the turns' ratios.

Parts: ingest-0.1, ingest-1.5, ingest-12 (or `ingest` for all three), stages, search-10k, search-100k (or `search`),
overhead, start, chunks; none named means all. What each process takes of memory is noted by ingest and search.
"""
