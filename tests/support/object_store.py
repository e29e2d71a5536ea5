"""An object store beside a stack: moto's, in a container, `s3:5000` on the networks of the scheduler and of `prep`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.stack import Stack

SETTINGS = "AWS_ENDPOINT_URL=http://s3:5000\nAWS_DEFAULT_REGION=us-east-1\n"
_UPLOAD = """
import sys, time, boto3, botocore.exceptions
client = boto3.client("s3", endpoint_url="http://127.0.0.1:5000", region_name="us-east-1",
                      aws_access_key_id="k", aws_secret_access_key="s")
for _ in range(1000):
    try:
        client.create_bucket(Bucket="data")
        break
    except botocore.exceptions.EndpointConnectionError:
        time.sleep(0.2)
client.put_object(Bucket="data", Key=sys.argv[1], Body=sys.stdin.buffer.read())
"""


@contextmanager
def object_store(stack: Stack, *files: Path) -> Iterator[str]:
    """Run a store that holds each file as s3://data/NAME; gives its container's name."""
    name = f"{stack.project}-s3"
    image = f"tarmac/test:{os.environ.get('TARMAC_TAG') or 'test'}"
    subprocess.run(
        ["docker", "run", "--detach", "--name", name, "--label", f"tarmac.test={stack.project}",
         "--network", f"{stack.project}_egress", "--network-alias", "s3",
         image, "moto_server", "-H", "0.0.0.0", "-p", "5000"],
        check=True, capture_output=True,
    )  # fmt: skip
    try:
        subprocess.run(["docker", "network", "connect", "--alias", "s3", f"{stack.project}_backend", name], check=True)
        for file in files:
            command = ["docker", "exec", "--interactive", name, "python", "-c", _UPLOAD, file.name]
            subprocess.run(command, input=file.read_bytes(), check=True, timeout=300)
        yield name
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], check=True, capture_output=True)
