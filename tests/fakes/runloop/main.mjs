// main.mjs -- the fake Runloop as a program:
//
//   node tests/fakes/runloop/main.mjs [--port N] [--tls-port N] [--plain-port N] [--api-tls-port N]
//       [--control-port N] [--host ADDRESS] [--key TEXT] [--latency-ms N] [--hold-ms N]
//       [--boxes N] [--tunnel open|authenticated] [--record]
//       [--name HOST --cert-file FILE --key-file FILE]
//
// Prints one line of JSON with its URLs, key and devboxes, and ends with SIGTERM or SIGINT. --host: where it
// listens, 127.0.0.1 unless said otherwise; --name: what it is called by clients elsewhere. Its control URL
// takes JSON:
//
//   GET  /stats                    {"counts": {...}, "leaks": [...], "failures": [...]}
//   GET  /calls                    what came, with --record
//   POST /reset                    see Runloop.reset()
//   POST /set {"latencyMs": 50}    fields of the fake
//   POST /misbehave {rule}         see Rules.add()
//   POST /boxes {options}          a devbox: see Devbox
//   GET  /boxes/ID                 {"home": ..., "processes": [...]}
//   POST /boxes/ID/METHOD [args]   suspend, resume, shutdown, fail, killProcesses, cutTunnels, stallTunnels, close
import http from 'node:http';
import { parseArgs } from 'node:util';
import { Runloop } from './runloop.mjs';

const text = { type: 'string' };
const { values } = parseArgs({
  options: {
    port: text, 'tls-port': text, 'plain-port': text, 'api-tls-port': text, 'control-port': text, host: text,
    key: text, 'latency-ms': text, 'hold-ms': text, boxes: text, tunnel: text, record: { type: 'boolean' },
    name: text, 'cert-file': text, 'key-file': text,
  },
});
const number = (name, otherwise) => (values[name] === undefined ? otherwise : Number(values[name]));

const fake = await Runloop.start({
  host: values.host,
  name: values.name,
  certFile: values['cert-file'],
  keyFile: values['key-file'],
  port: number('port', 0),
  tlsPort: number('tls-port', 0),
  plainPort: number('plain-port', 0),
  apiTlsPort: number('api-tls-port', 0),
  key: values.key,
  latencyMs: number('latency-ms', 0),
  holdMs: number('hold-ms'),
  record: values.record ?? false,
});
for (let i = 0; i < number('boxes', 1); i++) fake.createBox({ tunnel: values.tunnel });

const BOX_METHODS = ['suspend', 'resume', 'shutdown', 'fail', 'killProcesses', 'cutTunnels', 'stallTunnels', 'close'];
const FIELDS = ['latencyMs', 'holdMs', 'sse', 'secondTunnel', 'expired', 'record'];
const describe = (box) => ({ id: box.id, home: box.home, status: box.status, tunnel: box.tunnel });

async function control(method, path, body) {
  const [, what, id, action] = path.split('/');
  const box = fake.boxes.get(id);
  if (method === 'GET' && what === 'stats')
    return { counts: Object.fromEntries(fake.counts), leaks: fake.leaks, failures: fake.failures.map(String) };
  if (method === 'GET' && what === 'calls') return fake.calls;
  if (method === 'GET' && box) return { ...describe(box), processes: box.processes() };
  if (method !== 'POST') return null;
  if (what === 'reset') return fake.reset() ?? {};
  if (what === 'set') {
    for (const [name, value] of Object.entries(body)) if (FIELDS.includes(name)) fake[name] = value;
    return {};
  }
  if (what === 'misbehave') return fake.misbehave({ ...body, ...(body.times === null && { times: Infinity }) }) && {};
  if (what === 'boxes' && !id) return describe(fake.createBox(body));
  if (!box || !BOX_METHODS.includes(action)) return null;
  await box[action](...(Array.isArray(body) ? body : []));
  return describe(box);
}

const server = http.createServer(async (request, response) => {
  const chunks = [];
  try {
    for await (const chunk of request) chunks.push(chunk);
    const body = JSON.parse(Buffer.concat(chunks).toString() || '{}');
    const result = await control(request.method, request.url, body);
    response.writeHead(result ? 200 : 404, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify(result ?? { message: 'no such order' }));
  } catch (error) {
    response.writeHead(500).end(String(error));
  }
});
await new Promise((resolve) => server.listen(number('control-port', 0), fake.host, resolve));

const stop = async () => {
  server.close();
  server.closeAllConnections();
  let status = 0;
  await fake.close().catch((error) => {
    console.error(error.message);
    status = 1;
  });
  process.exit(status);
};
for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, stop);

const { url, tlsUrl, key, caFile, tunnelTemplate, plainTunnelTemplate } = fake;
console.log(
  JSON.stringify({
    url, tlsUrl, key, caFile, tunnelTemplate, plainTunnelTemplate,
    control: `http://${fake.names.plain}:${server.address().port}`,
    boxes: [...fake.boxes.values()].map(describe),
  }),
);
