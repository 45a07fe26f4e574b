"""Each job store in turn, with lasting or with hasty leases."""

import pytest
import redis
from jobstores import LASTING, LIMITS, Make

from lookalike.jobstore import JobStore, Limits
from lookalike.jobstore.memory import MemoryJobStore
from lookalike.jobstore.redis import RedisJobStore


@pytest.fixture(params=["memory", "redis"])
def make(request: pytest.FixtureRequest) -> Make:
    if request.param == "memory":
        return MemoryJobStore
    url = request.getfixturevalue("redis_url")

    def connect(limits: Limits) -> JobStore:
        client = redis.Redis.from_url(url, decode_responses=True)
        request.addfinalizer(client.close)
        return RedisJobStore(client, limits)

    return connect


@pytest.fixture
def store(make: Make) -> JobStore:
    return make(LASTING)


@pytest.fixture
def hasty(make: Make) -> JobStore:
    """A store whose leases lapse within a test."""
    return make(LIMITS)
