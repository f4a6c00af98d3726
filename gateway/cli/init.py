"""`headgate init`: a gateway file to start from."""

from __future__ import annotations

import argparse
from pathlib import Path

from gateway.errors import RefusedError

SUMMARY = "Write a gateway file to start from."

STARTER = """\
# A gateway file. `headgate check {name}` says what is wrong with it, `headgate run {name}` runs it,
# `headgate schema > headgate.schema.json` gives editors completion:
# yaml-language-server: $schema=headgate.schema.json

gateway: plant1              # its name everywhere: client id, topics

spool:
  # path: /var/lib/headgate/spool      # as a service; else headgate-data/spool beside this file
  max_bytes: 1GiB            # the oldest samples go first when a link stays away longer than this lasts

# An MQTT broker of its own, on which every value is live. Then the uplink below is for another one, or goes.
# broker:
#   listen: mqtt://127.0.0.1:1883
#   payload: [json, value]   # one object for each read, and one topic a tag, retained
#   # listen: [mqtt://127.0.0.1:1883, mqtts://0.0.0.0:8883]
#   # users: passwd          # `headgate passwd passwd NAME` makes it
#   # acl: acl
#   # tls: {{cert: broker.pem, key: broker.key}}

uplinks:
  local:
    url: mqtt://127.0.0.1:1883
    # url: mqtts://broker.example.com:8883
    # username: plant1
    # password: ${{file:/etc/headgate/broker.password}}
    # tls: {{ca: ca.pem, cert: gateway.pem, key: gateway.key}}

devices:
  boiler:
    driver: modbus
    url: tcp://192.0.2.10:502
    unit: 1
    every: 1s
    tags:
      flow:   {{address: "holding:100", type: float32, unit: m3/h, deadband: 0.1}}
      pump:   {{address: "coil:5", on: change, max_silence: 10m}}
      energy: {{address: "input:20", type: uint32, order: CDAB, scale: 0.001, unit: kWh, every: 10s}}
      # setpoint: {{address: "holding:7", type: int16, scale: 0.1, write: {{min: 5, max: 80}}}}   # takes commands

  # A meter on a serial line, by profile. Who is there: headgate probe rtu:///dev/ttyUSB0. What fits: headgate profiles
  # meter:
  #   driver: modbus
  #   url: rtu:///dev/serial/by-id/usb-FTDI_FT232R-if00-port0?baud=9600&parity=N
  #   unit: 1
  #   profile: eastron/sdm630

  # A server. What it has: headgate browse. Our certificate, for it to trust: headgate certificate {name}. Its own, for
  # us: headgate trust {name}
  # plc:
  #   driver: opcua
  #   url: opc.tcp://192.0.2.20:4840
  #   # pki: /var/lib/headgate/pki       # certificates; as a service, else headgate-data/pki beside this file
  #   tags:
  #     level: {{address: "nsu=urn:plant:line1;s=Tank.Level"}}
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", nargs="?", default="gateway.yaml", help="the file to write (default: gateway.yaml)")


def run(options: argparse.Namespace) -> int:
    """Write the file; an existing one is never overwritten."""
    path = Path(options.file)
    try:
        with path.open("x", encoding="utf-8") as out:
            out.write(STARTER.format(name=path.name))
    except FileExistsError:
        raise RefusedError(f"{path} is there already and stays as it is; give another name") from None
    except OSError as error:
        raise RefusedError(f"{path}: cannot be written: {error.strerror}") from error
    print(f"Wrote {path}. Next: edit its devices, then `headgate check {path}` and `headgate run {path}`.")
    return 0
