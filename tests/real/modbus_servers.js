// Modbus TCP servers of npm: node modbus_servers.js FOLDER NAME PORT, with the same data as modbus_servers.py.
const [folder, name, port] = process.argv.slice(2);
const { createRequire } = require('module');
const load = createRequire(folder + '/node_modules/');
const SIZE = 200;
const holding = Array.from({ length: SIZE }, (_, i) => (257 * i) & 0xffff);
const input = Array.from({ length: SIZE }, (_, i) => 0xffff - i);
const coils = Array.from({ length: SIZE }, (_, i) => i % 3 === 0);
const discrete = Array.from({ length: SIZE }, (_, i) => i % 5 === 0);

const from = (table) => (address) => {
  if (address >= SIZE) throw { modbusErrorCode: 2 };
  return table[address];
};

const servers = {
  'modbus-serial': () => {
    const { ServerTCP } = load('modbus-serial');
    const vector = {
      getHoldingRegister: from(holding),
      getInputRegister: from(input),
      getCoil: from(coils),
      getDiscreteInput: from(discrete),
      setRegister: (address, value) => { from(holding)(address); holding[address] = value; },
      setCoil: (address, value) => { from(coils)(address); coils[address] = value; },
    };
    new ServerTCP(vector, { host: '127.0.0.1', port: Number(port), unitID: 1 });
  },
  'jsmodbus': () => {
    const { server } = load('jsmodbus');
    const words = (table) => { const b = Buffer.alloc(2 * SIZE); table.forEach((v, i) => b.writeUInt16BE(v, 2 * i)); return b; };
    const bits = (table) => {
      const b = Buffer.alloc(SIZE / 8);
      table.forEach((v, i) => { if (v) b[i >> 3] |= 1 << (i & 7); });
      return b;
    };
    const socket = new (require('net').Server)();
    new server.TCP(socket, { holding: words(holding), input: words(input), coils: bits(coils), discrete: bits(discrete) });
    socket.listen(Number(port), '127.0.0.1');
  },
};
servers[name]();
