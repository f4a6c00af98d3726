// What an application does with a broker, by MQTT.js: node mqttjs_tour.js MODULES URL [OPTIONS]. Prints JSON.
const assert = require('assert')
const fs = require('fs')
const [modules, url, given] = process.argv.slice(2)
const mqtt = require(require.resolve('mqtt', { paths: [modules] }))

const options = { protocolVersion: 5, reconnectPeriod: 0, connectTimeout: 5000, ...JSON.parse(given || '{}') }
for (const key of ['ca', 'cert', 'key']) if (options[key]) options[key] = fs.readFileSync(options[key])

const patience = 10000
function within (promise, what) {
  return Promise.race([promise, new Promise((resolve, reject) => setTimeout(() => reject(new Error('waited in vain for ' + what)), patience).unref())])
}
function once (emitter, event, what) {
  return within(new Promise((resolve, reject) => {
    emitter.once(event, (...values) => resolve(values))
    if (event !== 'close') emitter.once('error', reject)
  }), what)
}
async function dial (more) {
  const client = mqtt.connect(url, { ...options, ...more })
  const inbox = []
  client.on('message', (topic, payload, packet) => inbox.push({ topic, payload: payload.toString(), packet }))
  client.on('error', () => {})
  const [connack] = await once(client, 'connect', 'CONNACK')
  return { client, connack, inbox }
}
async function count (inbox, n, what) {
  const end = Date.now() + patience
  while (inbox.length < n) {
    if (Date.now() > end) throw new Error(`waited in vain for ${what}: ${inbox.length} of ${n}`)
    await new Promise(resolve => setTimeout(resolve, 5))
  }
}

const stops = {
  async 'each QoS arrives once, with all properties' () {
    const { client, inbox } = await dial({})
    await client.subscribeAsync('tour/qos/#', { qos: 2, properties: { subscriptionIdentifier: 268435455 } })
    const properties = {
      payloadFormatIndicator: true, contentType: 'text/plain', responseTopic: 'tour/answer',
      correlationData: Buffer.from([0, 1, 255]), userProperties: { a: ['1', '2'], '': '' }
    }
    for (const qos of [0, 1, 2]) await client.publishAsync('tour/qos/' + qos, 'v' + qos, { qos, properties })
    await count(inbox, 3, 'three messages')
    inbox.forEach((m, qos) => {
      assert.equal(m.payload, 'v' + qos)
      assert.equal(m.packet.qos, qos)
      const p = m.packet.properties
      assert.equal(p.contentType, 'text/plain')
      assert.equal(p.responseTopic, 'tour/answer')
      assert.deepEqual([...p.correlationData], [0, 1, 255])
      assert.deepEqual(p.userProperties.a, ['1', '2'])
      assert.equal(p.subscriptionIdentifier, 268435455)
    })
    await client.endAsync()
  },
  async 'retained values come at once, and only where asked' () {
    const { client, inbox } = await dial({})
    await client.publishAsync('tour/kept', 'last', { qos: 1, retain: true })
    await client.subscribeAsync('tour/kept', { qos: 1, rh: 2 })
    await client.subscribeAsync('tour/kep+', { qos: 1 }).catch(() => {})
    await client.subscribeAsync('tour/+', { qos: 1, rh: 0, rap: true })
    await count(inbox, 1, 'the retained value')
    assert.equal(inbox[0].payload, 'last')
    assert.equal(inbox[0].packet.retain, true)
    await client.publishAsync('tour/kept', '', { qos: 1, retain: true })
    await client.endAsync()
  },
  async 'a shared group gets each message once' () {
    const members = await Promise.all([dial({}), dial({}), dial({})])
    for (const m of members) await m.client.subscribeAsync('$share/g/tour/work', { qos: 1 })
    const { client } = await dial({})
    await Promise.all([...Array(99).keys()].map(i => client.publishAsync('tour/work', '' + i, { qos: 1 })))
    const end = Date.now() + patience
    while (members.reduce((n, m) => n + m.inbox.length, 0) < 99 && Date.now() < end) await new Promise(resolve => setTimeout(resolve, 5))
    const all = members.flatMap(m => m.inbox.map(x => +x.payload)).sort((a, b) => a - b)
    assert.deepEqual(all, [...Array(99).keys()])
    members.forEach(m => assert.ok(m.inbox.length > 0, 'a member got nothing'))
    await Promise.all([...members.map(m => m.client.endAsync()), client.endAsync()])
  },
  async 'a session keeps what comes while it is away' () {
    const session = { clientId: 'tour-session', clean: false, properties: { sessionExpiryInterval: 60 } }
    const first = await dial({ ...session, clean: true })
    assert.equal(first.connack.sessionPresent, false)
    await first.client.subscribeAsync('tour/away/#', { qos: 2 })
    await first.client.endAsync()
    const { client } = await dial({})
    for (let i = 0; i < 50; i++) await client.publishAsync('tour/away/' + i, '' + i, { qos: 1 + i % 2 })
    const second = await dial(session)
    assert.equal(second.connack.sessionPresent, true)
    await count(second.inbox, 50, 'what came meanwhile')
    for (const rest of [0, 1]) { // in order for each QoS: with QoS 2 a client shows a message only at PUBREL
      const got = second.inbox.map(m => +m.payload).filter(n => n % 2 === rest)
      assert.deepEqual(got, [...Array(25).keys()].map(i => 2 * i + rest))
    }
    await second.client.endAsync({ properties: { sessionExpiryInterval: 0 } })
    await client.endAsync()
  },
  async 'the will comes when the link breaks, not after a goodbye' () {
    const watcher = await dial({})
    await watcher.client.subscribeAsync('tour/will/#', { qos: 1 })
    const will = topic => ({ will: { topic, payload: 'gone', qos: 1, properties: { contentType: 'x' } } })
    const polite = await dial(will('tour/will/polite'))
    await polite.client.endAsync()
    const rude = await dial(will('tour/will/rude'))
    rude.client.stream.destroy()
    await count(watcher.inbox, 1, 'the will')
    assert.equal(watcher.inbox[0].topic, 'tour/will/rude')
    assert.equal(watcher.inbox[0].packet.properties.contentType, 'x')
    await watcher.client.endAsync()
  },
  async 'topic aliases both ways' () {
    const { client, inbox, connack } = await dial({ autoAssignTopicAlias: true, properties: { topicAliasMaximum: 5 } })
    assert.ok(connack.properties.topicAliasMaximum > 0)
    await client.subscribeAsync('tour/alias/#', { qos: 0 })
    for (let i = 0; i < 30; i++) await client.publishAsync('tour/alias/' + i % 3, '' + i, { qos: 0 })
    await count(inbox, 30, 'thirty messages by alias')
    inbox.forEach((m, i) => assert.equal(m.topic, 'tour/alias/' + i % 3))
    await client.endAsync()
  },
  async 'what has expired does not come, what waited says so' () {
    const session = { clientId: 'tour-late', clean: false, properties: { sessionExpiryInterval: 60 } }
    const first = await dial({ ...session, clean: true })
    await first.client.subscribeAsync('tour/late/#', { qos: 1 })
    await first.client.endAsync()
    const { client } = await dial({})
    await client.publishAsync('tour/late/short', 's', { qos: 1, properties: { messageExpiryInterval: 1 } })
    await client.publishAsync('tour/late/long', 'l', { qos: 1, properties: { messageExpiryInterval: 100 } })
    await new Promise(resolve => setTimeout(resolve, 2100))
    const second = await dial(session)
    await count(second.inbox, 1, 'the message that lasts')
    assert.equal(second.inbox[0].topic, 'tour/late/long')
    const left = second.inbox[0].packet.properties.messageExpiryInterval
    assert.ok(left > 90 && left <= 98, 'expiry left: ' + left)
    await second.client.endAsync({ properties: { sessionExpiryInterval: 0 } })
    await client.endAsync()
  },
  async 'who is displaced is told' () {
    const first = await dial({ clientId: 'tour-twin' })
    const told = once(first.client, 'disconnect', 'DISCONNECT')
    const second = await dial({ clientId: 'tour-twin' })
    const [packet] = await told
    assert.equal(packet.reasonCode, 0x8e)
    await second.client.endAsync()
  },
  async 'megabyte payloads arrive whole' () {
    const { client, inbox } = await dial({})
    await client.subscribeAsync('tour/large', { qos: 2 })
    const large = 'x'.repeat(900000)
    await client.publishAsync('tour/large', large, { qos: 2 })
    await count(inbox, 1, 'the large one')
    assert.equal(inbox[0].payload, large)
    await client.endAsync()
  }
}

async function main () {
  const done = {}
  for (const [name, stop] of Object.entries(stops)) {
    try {
      await stop()
      done[name] = 'ok'
    } catch (error) {
      done[name] = String(error.stack || error).slice(0, 600)
    }
  }
  console.log(JSON.stringify(done))
  process.exit(0)
}
main()
