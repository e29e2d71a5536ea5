"""A cloud with a plain REST API: what the four commands share. Change it to what yours expects.

Credentials and addresses stand in env/providers.env: API_URL and API_TOKEN here.
"""

import json
import os
import urllib.parse
import urllib.request

LABEL = os.environ["TARMAC_LABEL"]


def call(method, path, body=None):
    """Call the API; return what it answers. An error ends the command, and its text is shown in `make hosts`."""
    request = urllib.request.Request(
        os.environ["API_URL"] + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": "Bearer " + os.environ["API_TOKEN"], "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=50) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def machines():
    """Return the machines that carry the label and cost money."""
    return call("GET", "/machines?label=" + urllib.parse.quote(LABEL))


def show(machine):
    """Print a machine as Tarmac reads it; without an address while it has none yet."""
    address = machine.get("address")
    print(
        json.dumps(
            {
                "id": machine["id"],
                "name": machine["name"],
                "label": machine["label"],
                "url": "ssh://" + address if address else "",
                "host_key": machine.get("host_key", ""),
            }
        )
    )
