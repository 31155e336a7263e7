"""What makes personal values fit to be compared, or less personal."""

import ipaddress
import re

from edgeproxy.mapping.values import Unfit

__all__ = ["e164", "normalise", "truncate_ip"]

_NOT_DIGITS = re.compile(r"[\s().\-/]")
_TRUNK = re.compile(r"\(0\)")


def e164(text: str) -> str:
    """A phone number that begins with + as E.164. Raises Unfit for anything else."""
    number = text.strip()
    if number.startswith("+"):
        number = "+" + _NOT_DIGITS.sub("", _TRUNK.sub("", number[1:]))
        if re.fullmatch(r"\+[1-9]\d{6,14}", number, re.ASCII):
            return number
    raise Unfit("it is not a phone number that begins with + and its country's code")


def normalise(text: str) -> str:
    """As advertisers expect a value before it is hashed: trimmed, lower case, phones as E.164.

    A text that begins with + but is no phone number is only trimmed and lowered.
    """
    text = text.strip().lower()
    if text.startswith("+"):
        try:
            return e164(text)
        except Unfit:
            return text
    return text


def truncate_ip(text: str) -> str:
    """The network of an address: /24, or /48 of IPv6. Raises Unfit for anything else."""
    try:
        address = ipaddress.ip_address(text.strip())
    except ValueError:
        raise Unfit("it is not an IP address") from None
    if isinstance(address, ipaddress.IPv4Address):
        return str(ipaddress.IPv4Network((int(address), 24), strict=False).network_address)
    if address.ipv4_mapped is not None:
        return truncate_ip(str(address.ipv4_mapped))
    return str(ipaddress.IPv6Network((int(address), 48), strict=False).network_address)
