"""What one server allows, in plain values. Knows no requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..stream import Recipe

MIB, GIB = 2**20, 2**30


@dataclass(frozen=True, slots=True)
class Limits:
    """How much anybody may have.

    Attributes
    ----------
    body : int
        Bytes of a request, or of a message of a WebSocket.
    media : int
        Bytes of a video or picture that is fetched.
    seconds : float
        Of a video that is watched for one request.
    frames : int
        Pictures of a request.
    pixels : int
        Of a picture.
    text : int
        Tokens of a text.
    answer : int
        Tokens of an answer.
    memory : int
        Tokens that a layer may be set to remember, in place of the server's own.
    deadline : float
        Seconds for a request, sessions' streams of events and WebSockets excepted.
    stall : float
        Seconds in which a client takes nothing of what is sent, or sends nothing of what it began.
    requests, requests_each : int
        Requests at a time: of all, and of a key or an address.
    per_minute : int
        Requests a minute of a key or an address.
    sessions, sessions_each : int
        Sessions open: of all, and of a key, or of an address where there are no keys.
    session_bytes : int
        That all sessions together can come to remember, archives included.
    pushes : int
        Requests with frames of one session that wait.
    idle : float
        Seconds after which a session that nobody uses ends.
    prefixes, prefix_bytes : int
        Conversations' beginnings that are remembered, and the bytes of what they remember.
    saves, save_bytes : int
        Saved sessions, and the bytes of their files.
    """

    body: int = 64 * MIB
    media: int = 256 * MIB
    seconds: float = 7200.0
    frames: int = 1024
    pixels: int = 2**25
    text: int = 4096
    answer: int = 4096
    memory: int = 32_768
    deadline: float = 600.0
    stall: float = 30.0
    requests: int = 512
    requests_each: int = 512
    per_minute: int = 12_000
    sessions: int = 128
    sessions_each: int = 128
    session_bytes: int = 8 * GIB
    pushes: int = 8
    idle: float = 900.0
    prefixes: int = 32
    prefix_bytes: int = 2 * GIB
    saves: int = 256
    save_bytes: int = 16 * GIB


@dataclass(frozen=True, slots=True)
class Settings:
    """One server.

    Attributes
    ----------
    name : str
        By which clients call the model.
    recipe : Recipe
        How streams watch where nobody says otherwise.
    fps : float or None
        Frames a second to watch; None for the model's own.
    chunk : int
        Frames a push.
    keys : tuple of str
        One of which every client must have; none lets everybody in who comes by an own name of this machine.
    hosts : tuple of str
        Names of this machine, beside localhost and numbers.
    folders : tuple of Path
        Whose files may be named.
    saves : Path or None
        Where sessions are saved; None saves none.
    private : bool
        Whether addresses on private networks may be opened.
    devices : bool
        Whether this machine's cameras may be opened.
    limits : Limits
    """

    name: str = "built-in"
    recipe: Recipe = field(default_factory=Recipe)
    fps: float | None = None
    chunk: int = 8
    keys: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()
    saves: Path | None = None
    private: bool = False
    devices: bool = False
    limits: Limits = field(default_factory=Limits)
