// A node-opcua server in a process of its own: node node_server.js NPM-FOLDER SETTINGS, settings and orders as servers.py
// beside it says. One JSON object a line: {"ready":true} first, then an answer to each order that comes in.
const [folder, text] = process.argv.slice(2);
const { createRequire } = require('module');
const fs = require('fs');
const path = require('path');
const readline = require('readline');
const opc = createRequire(folder + '/node_modules/')('node-opcua');
const { DataType, StatusCodes, Variant, VariantArrayType, MessageSecurityMode, SecurityPolicy } = opc;

const say = (object) => fs.writeSync(1, JSON.stringify(object) + '\n');
console.log = console.warn = console.info = (...words) => process.stderr.write(words.join(' ') + '\n');
const S = { counters: 0, period: 100, history: 0, capacity: 100000, policies: ['None'], modes: ['None'], limits: {},
  namespaces: ['urn:headgate:tests:plant'], anonymous: true, users: {}, types: true, tree: [0, 0], minimum: 10, ...JSON.parse(text) };
const PLANT = 'urn:headgate:tests:plant';
const nodes = {};
let plant, addressSpace, server, folderNode, timer, count = 0, started = 0;

// ---- values -------------------------------------------------------------------------------------------------------

const one = {
  Int64: (v) => opc.coerceInt64(v), UInt64: (v) => opc.coerceUInt64(v),
  DateTime: (v) => new Date(v), ByteString: (v) => Buffer.from(v, 'base64'), NodeId: (v) => opc.resolveNodeId(v),
  ExpandedNodeId: (v) => opc.coerceExpandedNodeId(v), StatusCode: (v) => opc.coerceStatusCode(v),
  QualifiedName: (v) => opc.coerceQualifiedName(v), LocalizedText: (v) => opc.coerceLocalizedText(v),
};
const typed = { Float: Float32Array, Double: Float64Array, SByte: Int8Array, Byte: Uint8Array, Int16: Int16Array,
  UInt16: Uint16Array, Int32: Int32Array, UInt32: Uint32Array };
const variant = (type, value) => {
  const turn = one[type] ?? ((v) => v);
  if (!Array.isArray(value)) return new Variant({ dataType: DataType[type], arrayType: VariantArrayType.Scalar, value: turn(value) });
  const many = value.map(turn);
  const held = typed[type] ? typed[type].from(many) : many;
  return new Variant({ dataType: DataType[type], arrayType: VariantArrayType.Array, value: held });
};

const add = (name, type, more = {}) => {
  const options = { browseName: name, nodeId: 's=' + name, dataType: type, minimumSamplingInterval: 0, ...more };
  nodes[name] = plant.addVariable({ organizedBy: folderNode, ...options });
  return nodes[name];
};

function addTypes() {
  const values = JSON.parse(fs.readFileSync(path.join(__dirname, 'values.json'), 'utf8'));
  for (const [type, [scalar, array]] of Object.entries(values)) {
    for (const [name, value] of [['', scalar], ['.array', array]]) {
      const rank = name ? { valueRank: 1, arrayDimensions: [0] } : {};
      add('type.' + type + name, DataType[type], rank).setValueFromSource(variant(type, value));
      add('write.' + type + name, DataType[type], rank).setValueFromSource(variant(type, value));
    }
  }
  add('type.empty', 'Int32', { valueRank: 1, arrayDimensions: [0] }).setValueFromSource(variant('Int32', []));
  add('type.null', 'BaseDataType').setValueFromSource(new Variant());
  add('type.variants', 'BaseDataType', { valueRank: 1, arrayDimensions: [0] }).setValueFromSource(new Variant({
    dataType: DataType.Variant, arrayType: VariantArrayType.Array, value: [variant('Int16', 1), variant('String', 'two')] }));
  add('type.matrix', 'Int32', { valueRank: 2, arrayDimensions: [2, 3] }).setValueFromSource(new Variant({
    dataType: DataType.Int32, arrayType: VariantArrayType.Matrix, dimensions: [2, 3], value: Int32Array.from([1, 2, 3, 4, 5, 6]) }));
  const types = addressSpace.getNamespace('urn:headgate:tests:types');
  const recipe = types.findDataType('Recipe');
  const make = (n) => addressSpace.constructExtensionObject(recipe, { name: 'r' + n, count: n, ratio: n / 2,
    where: { x: 1.5, y: -n }, steps: ['mix', 'heat'] });
  add('type.structure', recipe).setValueFromSource({ dataType: DataType.ExtensionObject, value: make(1) });
  add('write.structure', recipe).setValueFromSource({ dataType: DataType.ExtensionObject, value: make(1) });
  add('type.structure.array', recipe, { valueRank: 1, arrayDimensions: [0] }).setValueFromSource({
    dataType: DataType.ExtensionObject, arrayType: VariantArrayType.Array, value: [make(1), make(2)] });
  for (const [name, type, value] of [['Mode', 'Mode', 1], ['Grade', 'Grade', 20], ['beyond', 'Mode', 7]]) {
    add('type.' + name, types.findDataType(type)).setValueFromSource({ dataType: DataType.Int32, value });
    add('write.' + name, types.findDataType(type)).setValueFromSource({ dataType: DataType.Int32, value });
  }
  const status = { bad: 'BadSensorFailure', uncertain: 'UncertainLastUsableValue' };
  for (const [name, code] of Object.entries(status)) add(name, 'Double').setValueFromSource(variant('Double', 1.5), StatusCodes[code]);
  nodes.analog = plant.addAnalogDataItem({ organizedBy: folderNode, browseName: 'analog', nodeId: 's=analog', dataType: 'Double',
    engineeringUnitsRange: { low: 0, high: 200 }, engineeringUnits: opc.standardUnits.degree_celsius, minimumSamplingInterval: 0, value: variant('Double', 100) });
  add('readonly', 'Double', { accessLevel: 'CurrentRead', userAccessLevel: 'CurrentRead' }).setValueFromSource(variant('Double', 1));
  appear('vanishing');
}

function appear(name) { add(name, 'Int32').setValueFromSource(variant('Int32', 1)); }

function addTree([folders, leaves]) {
  if (!folders) return;
  const root = plant.addFolder(folderNode, { browseName: 'Tree', nodeId: 's=Tree' });
  for (let f = 0; f < folders; f++) {
    const branch = plant.addFolder(root, { browseName: 'F' + f, nodeId: 's=Tree.F' + f });
    for (let l = 0; l < leaves; l++) {
      plant.addVariable({ organizedBy: branch, browseName: 'L' + l, nodeId: 's=Tree.F' + f + '.L' + l, dataType: 'Double',
        value: variant('Double', l) });
    }
  }
}

// ---- counters: the k-th value is k, its source time is start + k * period, whenever the timer really came ----------

const counters = [];
function tick() {
  const due = Math.floor((Date.now() - started) / S.period);
  while (count < due) {
    count++;
    const time = new Date(started + count * S.period);
    const value = new Variant({ dataType: DataType.UInt32, value: count });
    for (const node of counters) node.setValueFromSource(value, StatusCodes.Good, time);
  }
}
function go() {
  started = !count && S.since ? S.since : Date.now() - count * S.period;
  tick();
  timer = setInterval(tick, Math.min(S.period, 1000));
}

// ---- orders -------------------------------------------------------------------------------------------------------

const sessions = () => server.engine.getSessions();
const orders = {
  stop: () => { clearInterval(timer); return { count }; },
  go: () => { clearInterval(timer); go(); },
  set: ({ node, type, value, status, time }) => nodes[node].setValueFromSource(
    variant(type, value), StatusCodes[status ?? 'Good'], time ? new Date(time) : undefined),
  get: ({ node }) => ({ value: nodes[node].readValue().value.toJSON() }),
  kill_session: ({ keep_subscriptions: keep }) => {
    const open = sessions();
    for (const session of open) server.engine.closeSession(session.authenticationToken, !keep, 'Terminated');
    return { killed: open.length };
  },
  drop_subscription: () => {
    let dropped = 0;
    for (const session of sessions()) for (const s of [...session.publishEngine.subscriptions]) { session.deleteSubscription(s.id); dropped++; }
    return { dropped };
  },
  drop_items: () => {
    let dropped = 0;
    for (const session of sessions()) for (const s of session.publishEngine.subscriptions) {
      for (const id of [...s.monitoredItems.keys()]) { s.removeMonitoredItem(id); dropped++; }
    }
    return { dropped };
  },
  vanish: ({ node }) => { addressSpace.deleteNode(nodes[node]); delete nodes[node]; },
  appear: ({ node }) => appear(node),
  state: () => {
    const cpu = process.cpuUsage();
    const subscriptions = sessions().flatMap((s) => s.publishEngine.subscriptions);
    return { count, started, sessions: sessions().length, subscriptions: subscriptions.length,
      items: subscriptions.reduce((n, s) => n + s.monitoredItemCount, 0),
      publish_requests: sessions().reduce((n, s) => n + s.publishEngine.pendingPublishRequestCount, 0),
      cpu_s: (cpu.user + cpu.system) / 1e6, rss: process.memoryUsage().rss };
  },
  quit: async () => { await server.shutdown(10); say({ ok: true }); process.exit(0); },
};

async function managers() {
  const options = (name, accept) => ({ rootFolder: path.join(S.folder, name), automaticallyAcceptUnknownCertificate: accept, disableFileWatchers: true });
  const made = [new opc.OPCUACertificateManager(options('pki', !S.trusted)), new opc.OPCUACertificateManager(options('users', false))];
  for (const manager of made) await manager.initialize();
  for (const [manager, from] of [[made[0], S.trusted], [made[1], S.users_trusted]]) {
    for (const file of from ? fs.readdirSync(from) : []) await manager.trustCertificate(fs.readFileSync(path.join(from, file)));
  }
  return made;
}

async function main() {
  const [serverCertificateManager, userCertificateManager] = await managers();
  const own = S.certificate ? { certificateFile: S.certificate, privateKeyFile: S.key } : {};
  server = new opc.OPCUAServer({
    ...own, port: S.port, host: '127.0.0.1', hostname: '127.0.0.1', serverCertificateManager, userCertificateManager,
    securityPolicies: S.policies.map((name) => SecurityPolicy[name]), securityModes: S.modes.map((name) => MessageSecurityMode[name]),
    allowAnonymous: S.anonymous, maxConnectionsPerEndpoint: 50, nodesets: [opc.nodesets.standard, path.join(__dirname, 'types.xml')],
    userManager: { isValidUser: (name, password) => Object.hasOwn(S.users, name) && S.users[name] === password },
    serverCapabilities: { minSupportedSampleRate: 0, maxSessions: 50, maxMonitoredItems: 1e6, maxMonitoredItemsPerSubscription: 1e6,
      maxMonitoredItemsQueueSize: 5000, operationLimits: S.limits, ...(S.capabilities ?? {}) },
    defaultSecureTokenLifetime: S.token_lifetime ?? 3600000,
  });
  await server.initialize();
  addressSpace = server.engine.addressSpace;
  for (const uri of S.namespaces) addressSpace.registerNamespace(uri);
  plant = addressSpace.getNamespace(PLANT);
  folderNode = plant.addFolder(addressSpace.rootFolder.objects, { browseName: 'Plant', nodeId: 's=Plant' });
  if (S.types) addTypes();
  addTree(S.tree);
  for (let i = 0; i < S.counters; i++) {
    counters.push(add('counter.' + i, 'UInt32'));
    counters[i].setValueFromSource(variant('UInt32', 0), StatusCodes.Good, new Date(S.since ?? Date.now()));
    if (i < S.history) addressSpace.installHistoricalDataNode(counters[i], { maxOnlineValues: S.capacity });
  }
  await server.start();
  if (S.counters && !S.paused) go();
  readline.createInterface({ input: process.stdin }).on('line', async (line) => {
    const order = JSON.parse(line);
    try { say({ ok: true, ...(await orders[order.do](order)) }); } catch (error) { say({ ok: false, error: String(error.stack) }); }
  }).on('close', () => process.exit(0));
  say({ ready: true, port: S.port, namespaces: addressSpace.getNamespaceArray().map((n) => n.namespaceUri), started });
}
main().catch((error) => { process.stderr.write(String(error.stack) + '\n'); process.exit(1); });
