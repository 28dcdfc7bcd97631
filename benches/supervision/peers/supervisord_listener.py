"""An event listener of supervisord: writes CLOCK_MONOTONIC to a named pipe at each end of a process.

Its protocol: http://supervisord.org/events.html#event-listener-notification-protocol
"""

import os
import sys
import time

heard = os.open(sys.argv[1], os.O_WRONLY)
while True:
    os.write(1, b"READY\n")
    head = dict(word.split(b":") for word in sys.stdin.buffer.readline().split())
    at = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    payload = sys.stdin.buffer.read(int(head[b"len"]))
    if head[b"eventname"] == b"PROCESS_STATE_EXITED" and b"processname:s1 " in payload:
        os.write(heard, b"%d\n" % at)
    os.write(1, b"RESULT 2\nOK")
