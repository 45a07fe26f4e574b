"""The Celery workers: plan, decode, embed, store, search."""
