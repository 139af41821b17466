"""What a message of the page's chat says, without its buttons."""

from __future__ import annotations

import re
from html import unescape


def told(content: str) -> str:
    return unescape(re.search('<span class="pv-said">(.*?)</span>', content, re.S)[1])  # type: ignore[index]
