"""The job store on Redis: every change of more than one key is one Lua script, every time is the server's.

The scripts lie in `../lua/`; `prelude.lua` describes the keys.
"""

from lookalike.jobstore.redis.connection import PREFIX
from lookalike.jobstore.redis.store import RedisJobStore

__all__ = ["PREFIX", "RedisJobStore"]
