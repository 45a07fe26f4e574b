"""The ingest lane: a planner that lists and cuts, and chunks that embed and store."""
