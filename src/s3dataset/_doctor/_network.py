"""Names, connections, TLS and clocks, each with its time."""

import socket
import ssl
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from email.utils import parsedate_to_datetime
from typing import Final

from s3dataset._client import Address
from s3dataset._config import ResolvedConfig
from s3dataset._doctor._check import Check, Status, first_line

__all__ = ["look_at_network"]

_PATIENCE_S: Final = 5.0
_FAR_S: Final = 0.05
_SLOW_NAMES_S: Final = 0.2
_SKEW_WARN_S: Final = 60
_SKEW_FAIL_S: Final = 15 * 60
"""Beyond it the service refuses signatures."""


def look_at_network(address: Address, settings: ResolvedConfig) -> Iterator[Check]:
    """One connection, step by step. Behind a proxy, to the proxy."""
    host = address.host.replace("{region}", address.region).strip("[]")
    port = address.port or (443 if address.scheme == "https" else 80)
    proxy = settings.proxy
    if proxy and not _is_excepted(host, settings.no_proxy):
        yield Check("network", "proxy", "info", f"requests go through {proxy}", facts={"proxy": str(proxy)})
        yield from _connect(proxy.host.strip("[]"), proxy.port, through_proxy=True, host=host, settings=settings)
        return
    yield from _connect(host, port, through_proxy=False, host=host, settings=settings, tls=address.scheme == "https")


def _connect(
    target: str, port: int, *, through_proxy: bool, host: str, settings: ResolvedConfig, tls: bool = False
) -> Iterator[Check]:
    what = f"{target} of the proxy" if through_proxy else target
    begin = time.perf_counter()
    try:
        found = socket.getaddrinfo(target, port, type=socket.SOCK_STREAM)
    except OSError as error:
        advice = f"check the spelling of bucket and region, and the DNS server; getent hosts {target} says the same?"
        yield Check("network", "DNS", "fail", f"{what} has no address: {first_line(error)}", advice)
        return
    seconds = time.perf_counter() - begin
    addresses = sorted({str(row[4][0]) for row in found})
    slow = seconds > _SLOW_NAMES_S
    yield Check(
        "network",
        "DNS",
        "warn" if slow else "ok",
        f"{what} has {len(addresses)} address{'es' if len(addresses) > 1 else ''} "
        f"({', '.join(addresses[:3])}{', …' if len(addresses) > 3 else ''}), {_ms(seconds)}",
        "a name server that slow is asked for every new host: a caching one nearby helps" if slow else "",
        {"addresses": addresses, "seconds": round(seconds, 5)},
    )
    begin = time.perf_counter()
    try:
        connection = socket.create_connection((target, port), timeout=_PATIENCE_S)
    except OSError as error:
        advice = "a firewall, a security group, a missing route or VPC endpoint? is the port right?"
        yield Check("network", "TCP", "fail", f"{target}:{port}: {first_line(error)}", advice)
        return
    seconds = time.perf_counter() - begin
    far = seconds > _FAR_S
    yield Check(
        "network",
        "TCP",
        "warn" if far else "ok",
        f"connected to port {port} in {_ms(seconds)}",
        "the bucket is far away: a job in its region would wait less, and pay nothing for the transfer" if far else "",
        {"seconds": round(seconds, 5)},
    )
    with ExitStack() as stack:
        stack.callback(connection.close)
        if through_proxy:
            return
        stream: socket.socket = connection
        if tls:
            begin = time.perf_counter()
            try:
                stream = secure = stack.enter_context(_context(settings).wrap_socket(connection, server_hostname=host))
            except (OSError, ValueError) as error:
                advice = (
                    "a proxy that opens TLS, or a store with a certificate of its own? name its roots by AWS_CA_BUNDLE"
                )
                yield Check("network", "TLS", "fail", first_line(error), advice)
                return
            seconds = time.perf_counter() - begin
            said = f"{secure.version()}, {_ms(seconds)}"
            yield Check("network", "TLS", "ok", said, facts={"seconds": round(seconds, 5)})
        yield from _clock(stream, host)


def _context(settings: ResolvedConfig) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if settings.ca_bundle is not None:
        context.load_verify_locations(cadata=settings.ca_bundle.decode("ascii", "replace"))
    return context


def _clock(stream: socket.socket, host: str) -> Iterator[Check]:
    """An unsigned request, whose answer, whatever it is, has a date."""
    before = time.time()
    try:
        stream.settimeout(_PATIENCE_S)
        stream.sendall(f"HEAD / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head and len(head) < 65536 and (data := stream.recv(4096)):
            head += data
    except OSError as error:
        yield Check("network", "clock", "info", f"no answer to tell the time by: {first_line(error)}")
        return
    after = time.time()
    lines = head.decode("latin-1").split("\r\n")
    dates = [line.partition(":")[2].strip() for line in lines if line.lower().startswith("date:")]
    try:
        told = parsedate_to_datetime(dates[0]).timestamp()
    except (IndexError, ValueError):
        yield Check("network", "clock", "info", "the answer has no date to compare with")
        return
    # The header has whole seconds, cut off: what it tells is somewhere in [told, told + 1).
    skew = before - (told + 1) if before > told + 1 else min(0.0, after - told)
    status: Status = "ok" if abs(skew) < _SKEW_WARN_S else "warn" if abs(skew) < _SKEW_FAIL_S else "fail"
    direction = "ahead of" if skew > 0 else "behind"
    said = "agrees with the service's" if abs(skew) < 1.0 else f"{abs(skew):,.0f} s {direction} the service's"
    advice = (
        ""
        if status == "ok"
        else "signatures are refused beyond 15 minutes: s3dataset then signs by the service's clock, others may not. "
        "Let NTP set this one (timedatectl)"
    )
    yield Check("network", "clock", status, said, advice, {"skew_s": round(skew, 1)})


def _is_excepted(host: str, no_proxy: str) -> bool:
    bypass = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined] # typeshed has it elsewhere only
    return bool(no_proxy) and bool(bypass(host, {"no": no_proxy}))


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.1f} ms"
