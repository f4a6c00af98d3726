"""The library's server with only those nodes of the standard that a client of ours asks for.

All 6,000 of them take over a second and 60 MB; a demo starts in no time with these.
"""

from __future__ import annotations

from typing import Any

from asyncua import ua as _ua
from asyncua.server.internal_server import InternalServer

ua: Any = _ua
"""Untyped: the library's own types of numbers are narrower than what it takes."""

CURRENT_TIME = 2258
"""The node of a server's clock [Part 6 A.3]."""
ENUMERATION = 29
"""The data type above all enumerations."""

_ROOT, _OBJECTS, _TYPES, _SERVER, _STATUS, _CAPABILITIES, _LIMITS = 84, 85, 86, 2253, 2256, 2268, 11704
_ORGANIZES, _HAS_SUBTYPE, _HAS_PROPERTY, _HAS_COMPONENT = 35, 45, 46, 47
_FOLDER, _VARIABLE = 61, 63
_INT32, _SERVER_STATE = 6, 852

_Row = tuple[int, str, int]
_REFERENCES: tuple[_Row, ...] = (
    (31, "References", 0), (32, "NonHierarchicalReferences", 31), (33, "HierarchicalReferences", 31),
    (34, "HasChild", 33), (_ORGANIZES, "Organizes", 33), (44, "Aggregates", 34), (_HAS_SUBTYPE, "HasSubtype", 34),
    (_HAS_PROPERTY, "HasProperty", 44), (_HAS_COMPONENT, "HasComponent", 44), (40, "HasTypeDefinition", 32),
)  # fmt: skip
"""NodeId, name, and the node above, here and in what follows [Part 5, Part 6 A.1]."""
_DATA_TYPES: tuple[_Row, ...] = (
    (24, "BaseDataType", 0), (26, "Number", 24), (27, "Integer", 26), (28, "UInteger", 26),
    (ENUMERATION, "Enumeration", 24), (1, "Boolean", 24), (3, "Byte", 28), (4, "Int16", 27), (5, "UInt16", 28),
    (_INT32, "Int32", 27), (7, "UInt32", 28), (10, "Float", 26), (11, "Double", 26), (12, "String", 24),
    (13, "DateTime", 24), (294, "UtcTime", 13), (21, "LocalizedText", 24), (22, "Structure", 24),
    (862, "ServerStatusDataType", 22), (338, "BuildInfo", 22), (_SERVER_STATE, "ServerState", ENUMERATION),
)  # fmt: skip
_OBJECT_TYPES: tuple[_Row, ...] = ((58, "BaseObjectType", 0), (61, "FolderType", 58))
_VARIABLE_TYPES: tuple[_Row, ...] = (
    (62, "BaseVariableType", 0), (63, "BaseDataVariableType", 62), (68, "PropertyType", 62),
)  # fmt: skip
_FOLDERS: tuple[_Row, ...] = (
    (_ROOT, "Root", 0), (_OBJECTS, "Objects", _ROOT), (_TYPES, "Types", _ROOT), (87, "Views", _ROOT),
    (88, "ObjectTypes", _TYPES), (89, "VariableTypes", _TYPES), (90, "DataTypes", _TYPES),
    (91, "ReferenceTypes", _TYPES), (_SERVER, "Server", _OBJECTS),
)  # fmt: skip
_COMPONENTS: tuple[_Row, ...] = (
    (_CAPABILITIES, "ServerCapabilities", _SERVER),
    (_LIMITS, "OperationLimits", _CAPABILITIES),
)
_VARIABLES: tuple[tuple[int, str, int, int, Any], ...] = (
    (2254, "ServerArray", _SERVER, 12, []),
    (2255, "NamespaceArray", _SERVER, 12, []),
    (2267, "ServiceLevel", _SERVER, 3, 255),
    (_STATUS, "ServerStatus", _SERVER, 862, None),
    (2257, "StartTime", _STATUS, 294, None),
    (CURRENT_TIME, "CurrentTime", _STATUS, 294, None),
    (2259, "State", _STATUS, _SERVER_STATE, 0),
    (2260, "BuildInfo", _STATUS, 338, None),
    (2262, "ProductUri", 2260, 12, ""),
    (2263, "ManufacturerName", 2260, 12, ""),
    (2261, "ProductName", 2260, 12, ""),
    (2264, "SoftwareVersion", 2260, 12, ""),
    (2265, "BuildNumber", 2260, 12, ""),
    (2266, "BuildDate", 2260, 294, None),
    *(
        (number, name, _LIMITS, 7, 0)
        for number, name in (
            (11705, "MaxNodesPerRead"),
            (12165, "MaxNodesPerHistoryReadData"),
            (12166, "MaxNodesPerHistoryReadEvents"),
            (11707, "MaxNodesPerWrite"),
            (12167, "MaxNodesPerHistoryUpdateData"),
            (12168, "MaxNodesPerHistoryUpdateEvents"),
            (11709, "MaxNodesPerMethodCall"),
            (11710, "MaxNodesPerBrowse"),
            (11711, "MaxNodesPerRegisterNodes"),
            (11712, "MaxNodesPerTranslateBrowsePathsToNodeIds"),
            (11713, "MaxNodesPerNodeManagement"),
            (11714, "MaxMonitoredItemsPerCall"),
        )
    ),
)
"""NodeId, name, the node above, data type, and what it holds at first."""


class SmallServer(InternalServer):
    """A server that knows little of the standard."""

    async def load_standard_address_space(self, shelf_file: Any = None) -> None:  # noqa: ARG002 - the library calls it so
        """Add the nodes; nothing is kept on a shelf."""
        kinds: tuple[tuple[tuple[_Row, ...], Any, int], ...] = (
            (_REFERENCES, ua.ReferenceTypeAttributes, _HAS_SUBTYPE),
            (_DATA_TYPES, ua.DataTypeAttributes, _HAS_SUBTYPE),
            (_OBJECT_TYPES, ua.ObjectTypeAttributes, _HAS_SUBTYPE),
            (_VARIABLE_TYPES, ua.VariableTypeAttributes, _HAS_SUBTYPE),
            (_FOLDERS, ua.ObjectAttributes, _ORGANIZES),
            (_COMPONENTS, ua.ObjectAttributes, _HAS_COMPONENT),
        )
        items = [
            _item(number, name, above, by, attributes())
            for rows, attributes, by in kinds
            for number, name, above in rows
        ]
        items += [
            _item(number, name, above, _HAS_COMPONENT, _variable(data_type, value))
            for number, name, above, data_type, value in _VARIABLES
        ]
        refused = list(self.node_mgt_service.try_add_nodes(items, check=False))
        if refused:
            raise ValueError(f"the library's server did not take these nodes: {refused}")


def _item(number: int, name: str, above: int, by: int, attributes: Any) -> Any:
    """One node to add, below another by a kind of reference."""
    attributes.DisplayName = ua.LocalizedText(name)
    kind = type(attributes).__name__.removesuffix("Attributes")
    item: Any = ua.AddNodesItem(NodeClass=ua.NodeClass[kind], NodeAttributes=attributes)
    item.RequestedNewNodeId, item.ParentNodeId = _id(number), _id(above)
    item.ReferenceTypeId, item.BrowseName = _id(by), ua.QualifiedName(name)
    item.TypeDefinition = _id({"Object": _FOLDER, "Variable": _VARIABLE}.get(kind, 0))
    return item


def _variable(data_type: int, value: Any) -> Any:
    attributes: Any = ua.VariableAttributes(DataType=_id(data_type))
    attributes.ValueRank = 1 if isinstance(value, list) else -1
    attributes.AccessLevel = attributes.UserAccessLevel = 1  # it can be read [Part 3 8.57]
    if value is not None:
        built_in = _INT32 if data_type == _SERVER_STATE else data_type
        attributes.Value = ua.Variant(value, ua.VariantType(built_in))
    return attributes


def _id(number: int) -> Any:
    return ua.NodeId(number) if number else ua.NodeId()
