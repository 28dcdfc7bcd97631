"""Many clients of the official SDK, each of which believes it has launched a server of its own.

clients.py FOLDER CALLS COMMAND...: twenty clients make so many calls in all, and go on until there is
a file FOLDER/enough. Prints one object: how many calls were answered, how many were lost and told so,
and every other outcome.
"""

import asyncio
import json
import os
import sys

from mcp import ClientSession, MCPError, StdioServerParameters, stdio_client

CLIENTS = 20
PATIENCE = 120

folder, calls, command = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
told = {"answered": 0, "lost": 0, "wrong": [], "errors": []}
ready = asyncio.Event()


def enough():
    return os.path.exists(os.path.join(folder, "enough"))


async def call(session, client, number):
    a, b = client * 1_000_000 + number, number
    try:
        if number % 8 == 4:
            # Long enough that somebody is always waiting for the server.
            wanted = {"duration": 0.2, "steps": 1}
            result = await session.call_tool("trigger-long-running-operation", wanted)
            expected = "Long running operation completed. Duration: 0.2 seconds, Steps: 1."
        elif number % 2:
            result = await session.call_tool("echo", {"message": f"{client}:{number}"})
            expected = f"Echo: {client}:{number}"
        else:
            result = await session.call_tool("get-sum", {"a": a, "b": b})
            expected = f"The sum of {a} and {b} is {a + b}."
    except MCPError as error:
        text = str(error)
        if "SIGKILL" in text and ("maybe_read" in text or "never_read" in text):
            told["lost"] += 1
        else:
            told["errors"].append(text)
        return
    if result.is_error or result.content[0].text != expected:
        told["wrong"].append([expected, str(result)])
    else:
        told["answered"] += 1


async def client(number):
    server = StdioServerParameters(command=command[0], args=command[1:], env=dict(os.environ))
    with open(os.path.join(folder, f"client-{number}.log"), "w") as log:
        async with stdio_client(server, errlog=log) as (read, write):
            async with ClientSession(read, write) as session:
                hello = await session.initialize()
                assert hello.server_info.name, hello
                at = 0
                while at < calls // CLIENTS or not enough():
                    await asyncio.wait_for(call(session, number, at), PATIENCE)
                    at += 1


async def main():
    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(client(number))
    print(json.dumps(told))


asyncio.run(main())
