"""A subscriber of circus' events: writes CLOCK_MONOTONIC to a named pipe at each end of a process."""

import os
import sys
import time

import zmq
from zmq.utils.monitor import recv_monitor_message

heard = os.open(sys.argv[2], os.O_WRONLY)
socket = zmq.Context().socket(zmq.SUB)
monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
socket.setsockopt(zmq.SUBSCRIBE, b"watcher.s1.reap")
socket.connect(sys.argv[1])
recv_monitor_message(monitor)
os.write(heard, b"0\n")
while True:
    socket.recv_multipart()
    os.write(heard, b"%d\n" % time.clock_gettime_ns(time.CLOCK_MONOTONIC))
