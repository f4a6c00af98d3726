"""The servers that measurements talk to are those of tests/real."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location("real_conftest", Path(__file__).parents[1] / "real" / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
_real = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_real)
need, free_port, node_opcua = _real.need, _real.free_port, _real.node_opcua
opcua_launcher, opcua_servers = _real.opcua_launcher, _real.opcua_servers
