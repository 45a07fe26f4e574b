"""A service whose dear parts are stood in for, so that what is around them can be measured.

Real are the Valkey server, the Celery workers, the planner, the pipes and shared memory of the decoder processes, and
on request Milvus Lite and the front end.
"""
