"""A file from a web server that a stranger named: each address on the way is checked, and so is how much comes."""

from __future__ import annotations

import time
from typing import BinaryIO
from urllib.parse import urljoin

import httpx

from .rules import Guard, Refused, public_number, shown_address, split_address, with_host

_MOST_REDIRECTS = 5


def fetched(guard: Guard, text: str, file: BinaryIO, most: int, patience: float) -> str:
    """Write what is at an address into a file.

    Parameters
    ----------
    guard : Guard
    text : str
        http or https.
    file : binary file
    most : int
        Bytes.
    patience : float
        Seconds for all of it, however slowly a server speaks.

    Returns
    -------
    str
        The address as it may be shown.

    Raises
    ------
    Refused
        If it may not be fetched, is larger, or can't be had in time.
    """
    over, parts = time.monotonic() + patience, split_address(text)
    first = shown_address(parts)
    if parts.scheme not in ("http", "https"):
        raise Refused(f"{first} is not fetched; expected an address of http or https.")
    late = Refused(f"{first} does not come within {patience:g} seconds; try again later.")
    try:
        with httpx.Client(timeout=min(patience, 10.0), trust_env=False) as client:
            for _ in range(_MOST_REDIRECTS + 1):
                url = text if guard.private else with_host(parts, public_number(parts))
                headers = {"Host": parts.netloc.rpartition("@")[2], "Accept-Encoding": "identity"}
                with client.stream("GET", url, headers=headers, extensions={"sni_hostname": parts.hostname}) as answer:
                    if not answer.is_redirect:
                        if not answer.is_success:
                            raise Refused(f"{first} answers with status {answer.status_code}; check the address.")
                        for data in answer.iter_raw(2**16):
                            most -= len(data)
                            if most < 0:
                                raise Refused(f"{first} is larger than what this server fetches; send a smaller one.")
                            if time.monotonic() > over:
                                raise late
                            file.write(data)
                        return first
                    text = urljoin(text, answer.headers["location"])
                if time.monotonic() > over:
                    raise late
                parts = split_address(text)
                if parts.scheme not in ("http", "https"):
                    raise Refused(f"{first} sends one to another kind of address; give the last one.")
    except httpx.TimeoutException as error:
        raise late from error
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise Refused(
            f"{first} cannot be reached ({str(error) or type(error).__name__}); check the address."
        ) from error
    raise Refused(f"{first} sends one elsewhere more than {_MOST_REDIRECTS} times; give the last address.")
