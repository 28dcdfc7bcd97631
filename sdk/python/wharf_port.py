"""Programs that speak wharf's wire protocol 1: see docs/PROTOCOL.md of wharf.

    from wharf_port import Port, CallFailed

    port = Port("adder", "1.0", enc="json", concurrency=4)

    @port.call
    def add(request, call):
        return sum(request["numbers"])

    port.run()

What is printed goes to standard error while the port runs: standard output belongs to the protocol.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from types import GeneratorType
from typing import Any, Callable, Optional

__all__ = ["Call", "CallFailed", "Port", "ProtocolError"]

PROTO = 1
MAX_FRAME = 16 << 20
HEADER = struct.Struct(">IBBQ")

DATA, CALL, REPLY, ERROR, CANCEL, CREDIT, MISSED = range(7)
HELLO, READY, PING, PONG, DRAIN, EXIT = range(0x10, 0x16)
LOG, METRIC = 0x30, 0x31
KNOWN = {*range(7), *range(0x10, 0x16), *range(0x20, 0x27), LOG, METRIC}

MORE, FDS, TRACE, NOREPLY, TO, CRITICAL = 0x01, 0x02, 0x04, 0x08, 0x10, 0x80
UNKNOWN = 0x60


class ProtocolError(Exception):
    """What came is not the protocol. There is no way back from it."""


class CallFailed(Exception):
    """Raised by a handler: the caller gets this code and message. `retry`: safe, unsafe or never."""

    def __init__(self, code: str, message: str, retry: str = "unsafe", data: Any = None):
        super().__init__(message)
        self.failure = {"code": code, "message": message, "retry": retry}
        if data is not None:
            self.failure["data"] = data


class Call:
    """What a handler may want to know of its call beside the payload."""

    def __init__(self, id: int, trace: Optional[bytes]):
        self.id = id
        #: The 25 bytes of the W3C trace context, where there is one.
        self.trace = trace
        self._cancelled = threading.Event()

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self._cancelled.is_set()


class Port:
    """A program under wharf. `enc` says what payloads are: raw (bytes), text (str) or json (values)."""

    def __init__(
        self,
        name: str,
        version: str = "0",
        *,
        concurrency: int = 1,
        enc: str = "raw",
        max_frame: int = MAX_FRAME,
        credit: Optional[int] = None,
    ):
        if enc not in ("raw", "text", "json"):
            raise ValueError(f"enc is raw, text or json, not {enc!r}")
        self.hello = {"proto": PROTO, "name": name, "version": version, "enc": enc}
        self.hello |= {"concurrency": concurrency, "max_frame": max_frame}
        if credit is not None:
            self.hello["credit"] = credit
        #: The manager's HELLO, once the port runs.
        self.manager: dict = {}
        self._enc, self._credit = enc, credit
        self._on_call: Optional[Callable[[Any, Call], Any]] = None
        self._on_data: Optional[Callable[[Any], None]] = None
        self._calls: dict[int, Call] = {}
        self._lock = threading.Lock()
        self._input = self._output = -1

    def call(self, handler: Callable[[Any, Call], Any]) -> Callable[[Any, Call], Any]:
        """Decorates the function that answers calls. What a generator yields are the parts of a reply."""
        self._on_call = handler
        return handler

    def data(self, handler: Callable[[Any], None]) -> Callable[[Any], None]:
        """Decorates the function that takes messages which nobody answers."""
        self._on_data = handler
        return handler

    def send(self, payload: Any) -> None:
        """Says something to whoever listens."""
        self._write(DATA, 0, 0, self._encode(payload))

    def log(self, level: str, message: str, **fields: Any) -> None:
        """Writes a line to the program's log: trace, debug, info, warn or error."""
        self._control(LOG, {"level": level, "message": message, "fields": fields})

    def run(self) -> None:
        """Speaks until the input ends or the manager drains the port; then every call is answered."""
        if os.environ.get("PORT_PROTO") != str(PROTO):
            sys.exit(f"{self.hello['name']} is a port: run it under wharf, with `port: {{ protocol: 1 }}`")
        self._open()
        self._control(HELLO, self.hello)
        with ThreadPoolExecutor(max(1, self.hello["concurrency"])) as pool:
            while self._serve(pool):
                pass
        self._control(EXIT, {"reason": "returned"})

    def _open(self) -> None:
        channel = os.environ.get("PORT_CHANNEL", "0,1")
        if channel == "3":
            self._input = self._output = 3
            return
        # Whoever prints or reads must not meet the protocol.
        self._input, self._output = os.dup(0), os.dup(1)
        with open(os.devnull) as null:
            os.dup2(null.fileno(), 0)
        os.dup2(2, 1)

    def _serve(self, pool: ThreadPoolExecutor) -> bool:
        """Takes the next frame. Whether there may be more."""
        frame = self._read()
        if frame is None:
            return False
        kind, flags, id, trace, payload = frame
        if not self.manager and kind != HELLO:
            raise ProtocolError(f"the first frame is of the kind {kind:#04x}, and HELLO is due")
        if kind == HELLO:
            self.manager = self._json(payload)
            self._control(READY, {})
        elif kind == CALL:
            call = Call(id, trace)
            if not flags & NOREPLY:
                with self._lock:
                    self._calls[id] = call
            pool.submit(self._answer, call, payload, bool(flags & NOREPLY))
        elif kind == DATA:
            self._take(payload)
        elif kind == CANCEL:
            with self._lock:
                call = self._calls.get(id)
            if call:
                call._cancelled.set()
        elif kind == PING:
            self._write(PONG, 0, id, b"")
        return kind != DRAIN

    def _take(self, payload: bytes) -> None:
        try:
            if self._on_data:
                self._on_data(self._decode(payload))
        except Exception:
            traceback.print_exc()
        if self._credit is not None:
            self._control(CREDIT, {"frames": 1})

    def _answer(self, call: Call, payload: bytes, quietly: bool) -> None:
        try:
            if self._on_call is None:
                raise CallFailed("not_supported", "this port takes no calls", "never")
            answer = self._on_call(self._decode(payload), call)
            parts = answer if isinstance(answer, GeneratorType) else iter([answer])
            part = next(parts, None)
            for following in parts:
                self._reply(call, MORE, part, quietly)
                part = following
            self._reply(call, 0, part, quietly)
        except CallFailed as failed:
            self._fail(call, failed.failure, quietly)
        except Exception as error:
            traceback.print_exc()
            failure = {"code": "internal", "message": f"{type(error).__name__}: {error}"}
            self._fail(call, failure, quietly)

    def _reply(self, call: Call, flags: int, part: Any, quietly: bool) -> None:
        if not quietly:
            self._write(REPLY, flags, call.id, self._encode(part))
            if not flags & MORE:
                self._over(call)

    def _fail(self, call: Call, failure: dict, quietly: bool) -> None:
        if not quietly:
            self._control(ERROR, failure, call.id)
            self._over(call)

    def _over(self, call: Call) -> None:
        with self._lock:
            self._calls.pop(call.id, None)

    def _encode(self, value: Any) -> bytes:
        if self._enc == "json":
            return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        if value is None:
            return b""
        return value.encode() if isinstance(value, str) else bytes(value)

    def _decode(self, payload: bytes) -> Any:
        try:
            if self._enc == "json":
                return json.loads(payload)
            return payload.decode() if self._enc == "text" else payload
        except ValueError as error:
            raise CallFailed("bad_request", f"the payload is not {self._enc}: {error}", "never")

    def _json(self, payload: bytes) -> dict:
        try:
            value = json.loads(payload or b"{}")
        except ValueError as error:
            raise ProtocolError(f"a control frame is not JSON: {error}") from None
        if not isinstance(value, dict):
            raise ProtocolError("a control frame is not a JSON object")
        return value

    def _control(self, kind: int, payload: dict, id: int = 0) -> None:
        self._write(kind, 0, id, json.dumps(payload, separators=(",", ":")).encode())

    def _write(self, kind: int, flags: int, id: int, payload: bytes) -> None:
        largest = self.manager.get("max_frame", MAX_FRAME)
        if len(payload) > largest:
            raise CallFailed("too_large", f"{len(payload)} bytes, {largest} are allowed", "never")
        frame = HEADER.pack(len(payload) + 10, kind, flags, id) + payload
        with self._lock:
            rest = memoryview(frame)
            while rest:
                rest = rest[os.write(self._output, rest) :]

    def _read(self) -> Optional[tuple[int, int, int, Optional[bytes], bytes]]:
        """The next frame that is known, or None at the end of the input."""
        while True:
            head = self._exactly(4, between=True)
            if head is None:
                return None
            (length,) = struct.unpack(">I", head)
            if not 10 <= length <= self.hello["max_frame"] + 10:
                raise ProtocolError(f"a frame announces {length} bytes")
            kind, flags, id = struct.unpack(">BBQ", self._exactly(10))
            payload = self._exactly(length - 10)
            if kind >= 0x80:
                continue
            if kind not in KNOWN:
                raise ProtocolError(f"the kind {kind:#04x} is not known")
            if flags & FDS or (flags & CRITICAL and flags & UNKNOWN):
                raise ProtocolError(f"the flags {flags:#04x} cannot be heeded")
            trace = None
            if flags & TRACE:
                trace, payload = payload[:25], payload[25:]
            if flags & TO:
                payload = payload[2 + int.from_bytes(payload[:2], "big") :]
            return kind, flags, id, trace, payload

    def _exactly(self, count: int, between: bool = False) -> Optional[bytes]:
        """So many bytes, read as they come; None where the input ends between two frames."""
        parts, left = [], count
        while left:
            part = os.read(self._input, min(left, 1 << 16))
            if not part:
                if between and left == count:
                    return None
                raise ProtocolError("the input ended inside a frame")
            parts.append(part)
            left -= len(part)
        return b"".join(parts)
