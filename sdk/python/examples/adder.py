#!/usr/bin/env python3
"""A port that adds: {"op": "add", "args": [1, 2]} is answered by 3, {"op": "count", "to": 3} in parts."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

from wharf_port import Call, CallFailed, Port

port = Port("adder", "0.1.0", enc="json", concurrency=4)


def count(to):
    yield from range(1, to + 1)


@port.call
def answer(request, call: Call):
    try:
        if request["op"] == "add":
            return sum(request["args"])
        if request["op"] == "count":
            return count(request["to"])
        if request["op"] == "pid":
            return os.getpid()
        if request["op"] == "say":
            port.log("info", "asked to say something", words=request["words"])
            port.send(request["words"])
            return None
    except (KeyError, TypeError) as error:
        raise CallFailed("bad_request", f"cannot understand the request: {error}", "never")
    raise CallFailed("bad_request", f"op {request['op']!r} is not known", "never")


if __name__ == "__main__":
    port.run()
