"""Addresses: which machines on the network may be talked to on a user's behalf.

A name is resolved once, all its addresses are judged, and the connection is made to one of those that were judged: a
name server that answers differently the second time is never asked a second time.
"""

import ipaddress
import socket
from collections.abc import Callable, Sequence
from typing import Final

from lookalike.errors import URLBlocked, URLTimeout, URLUnreachable
from lookalike.remote.passing import Passing

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Returns the addresses of a host name, or of an address in any spelling the system knows; raises `socket.gaierror`,
#: and `TimeoutError` where it has a time limit.
Resolver = Callable[[str, int], Sequence[str]]

#: What `is_global` lets through although it leads, or may lead, to a private network: addresses that carry an IPv4
#: address inside (translated, tunnelled or mapped), and those that name no single machine on the internet.
_DENIED: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "100.64.0.0/10",  # Carrier-grade NAT.
        "169.254.0.0/16",  # Link-local; the metadata services of clouds.
        "192.0.0.0/24",
        "192.88.99.0/24",  # 6to4 relays.
        "224.0.0.0/4",  # Multicast.
        "240.0.0.0/4",
        "::/96",  # IPv4-compatible.
        "::ffff:0:0/96",  # IPv4-mapped.
        "::ffff:0:0:0/96",  # IPv4-translated.
        "64:ff9b::/96",  # NAT64.
        "64:ff9b:1::/48",
        "100::/64",  # Discard.
        "2001::/23",  # Teredo and its neighbours.
        "2001:db8::/32",
        "2002::/16",  # 6to4.
        "3fff::/20",
        "5f00::/16",  # Segment routing.
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",  # Site-local, long abolished and still routed here and there.
        "ff00::/8",
    )
)

#: Name servers that do not answer now may later; a name that does not exist will not.
_PASSING: Final = frozenset({socket.EAI_AGAIN, socket.EAI_SYSTEM})


def system_resolver(host: str, port: int) -> Sequence[str]:
    """Ask the operating system."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def is_public(address: IPAddress) -> bool:
    """Tell whether an address is that of one machine on the internet, and nothing else."""
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not any(address in network for network in _DENIED if network.version == address.version)
    )


def addresses_of(host: str, port: int, *, resolve: Resolver, private: bool) -> Sequence[str]:
    """Resolve a host, and return its addresses where every one of them may be connected to.

    One address that may not is enough to refuse the host: which of them a connection takes is for chance to say.
    Raises `URLBlocked`, `URLUnreachable`, and `Passing` where the name servers do not answer, or not in time.
    """
    try:
        found = resolve(host, port)
    except socket.gaierror as error:
        unreachable = URLUnreachable("The address could not be reached: there is no host of this name.")
        if error.errno in _PASSING:
            raise Passing(unreachable) from error
        raise unreachable from error
    except TimeoutError as error:
        raise Passing(URLTimeout("The address was not found in time: the name servers do not answer.")) from error
    except (OSError, UnicodeError) as error:
        raise URLUnreachable("The address could not be reached: its host's name cannot be looked up.") from error
    if not found:
        raise URLUnreachable("The address could not be reached: its host has no address.")
    if not private and not all(_may(address) for address in found):
        raise URLBlocked
    return found


def _may(address: str) -> bool:
    # With a zone, as in fe80::1%eth0, it is of this machine's own network.
    return "%" not in address and is_public(ipaddress.ip_address(address))
