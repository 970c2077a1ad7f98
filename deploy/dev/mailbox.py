"""Takes mail by SMTP on 127.0.0.1, and keeps each in a folder of its recipient: DIRECTORY/ADDRESS/NUMBER.eml.

  mailbox.py PORT DIRECTORY
"""

import asyncio
import itertools
import pathlib
import re
import sys

from aiosmtpd.smtp import SMTP


class Keeper:
    def __init__(self, directory: pathlib.Path):
        self.directory = directory
        self.numbers = itertools.count(1)

    async def handle_DATA(self, server, session, envelope):  # noqa: N802, aiosmtpd's name
        for recipient in envelope.rcpt_tos:
            folder = self.directory / re.sub(r"[^a-z0-9@.+_-]", "_", recipient.lower())
            folder.mkdir(parents=True, exist_ok=True)
            name = f"{next(self.numbers):08}.eml"
            # Whoever looks sees a whole mail or none.
            part = folder / f".{name}"
            part.write_bytes(envelope.content)
            part.rename(folder / name)
        return "250 OK"


async def main(port: int, directory: pathlib.Path):
    directory.mkdir(parents=True, exist_ok=True)
    keeper = Keeper(directory)
    server = await asyncio.get_running_loop().create_server(lambda: SMTP(keeper), "127.0.0.1", port)
    print("ready", flush=True)
    await server.serve_forever()


asyncio.run(main(int(sys.argv[1]), pathlib.Path(sys.argv[2])))
