"""Remote files: images on the web and in object stores, brought to this machine before anybody decodes them.

Nobody who decodes imports this package: it talks to networks. What it has fetched is opened by `lookalike.fetched`.
"""

from lookalike.remote.cache import Pruned, prune_fetched
from lookalike.remote.fetching import Fetched
from lookalike.remote.objects import ObjectInfo
from lookalike.remote.remote import Remote
from lookalike.remote.urls import check_webhook_url

__all__ = ["Fetched", "ObjectInfo", "Pruned", "Remote", "check_webhook_url", "prune_fetched"]
