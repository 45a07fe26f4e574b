"""Measure searches by index: how long, how much memory, and how many of the true neighbours they find.

For each server, number of rows and index: what building it takes, the latency of one query and of 32 in one call, the
processor's time, the server's memory, and recall@1 and @10 against an exact search by numpy. The vectors are made up:
a mixture of clusters of many sizes with near-duplicates, through a ReLU, as those of a ResNet are; they are the same in
every run. Everything goes through the vector store that the service uses; only the index is chosen by this bench.

`run` does all of it. In pieces: `fill` stores rows, `index` builds an index, `serve` keeps a server running with the
collection loaded, and `search` measures what `serve` serves; `table` prints what the pieces have noted.
"""
