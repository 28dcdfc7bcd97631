"""A long-running filter as gitattributes(5) describes it, of one's own.

It cleans by putting `filtered ` before the contents and turning them round. Some contents are
special: `bad` is answered with an error, `half` with an error after some of it, `die` with the end.
A second handshake is none that it knows.
"""

import os
import sys

inputs, outputs = sys.stdin.buffer, sys.stdout.buffer


def packet():
    """The next packet; `None` for a flush."""
    length = inputs.read(4)
    if not length:
        sys.exit(0)
    length = int(length, 16)
    return inputs.read(length - 4) if length else None


def section():
    packets = []
    while (one := packet()) is not None:
        packets.append(one)
    return packets


def say(*packets):
    for one in packets:
        while one:
            part, one = one[:65516], one[65516:]
            outputs.write(b"%04x" % (len(part) + 4) + part)
    outputs.write(b"0000")
    outputs.flush()


def filtered(command, contents):
    if command == b"clean":
        return b"filtered " + contents[::-1]
    assert contents.startswith(b"filtered "), contents
    return contents[9:][::-1]


assert section() == [b"git-filter-client\n", b"version=2\n"]
say(b"git-filter-server\n", b"version=2\n")
offered = section()
assert b"capability=clean\n" in offered and b"capability=delay\n" not in offered
say(b"capability=clean\n", b"capability=smudge\n")
while True:
    asked = dict(line.rstrip(b"\n").split(b"=", 1) for line in section())
    command, contents = asked[b"command"], b"".join(section())
    assert command in (b"clean", b"smudge") and b"can-delay" not in asked, asked
    if contents == b"bad":
        say(b"status=error\n")
    elif contents == b"half":
        say(b"status=success\n")
        say(b"some of it")
        say(b"status=error\n")
    elif contents == b"die":
        os._exit(3)
    else:
        say(b"status=success\n")
        say(filtered(command, contents))
        say()
