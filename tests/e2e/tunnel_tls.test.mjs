// tunnel_tls.test.mjs -- a tunnel over real TLS (wss): the far end's certificate is verified, by name and
// by a private CA. keys/ was made with openssl: a CA, and a certificate for localhost by it.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import { fileURLToPath } from 'node:url';
import tls from 'node:tls';
import { PatternShell } from './lib/pattern.mjs';
import { Agent, test } from './lib/service.mjs';

const key = (name) => fileURLToPath(new URL(`keys/${name}`, import.meta.url));

// TLS in front of an agent, as a gateway does it.
async function gateway(t, agent) {
  const options = { key: readFileSync(key('server.key.pem')), cert: readFileSync(key('server.pem')) };
  const sockets = new Set();
  const server = tls.createServer(options, (outer) => {
    const inner = net.connect(agent.port, '127.0.0.1');
    for (const [from, to] of [[outer, inner], [inner, outer]]) {
      sockets.add(from);
      from.on('error', () => to.destroy());
      from.pipe(to);
    }
  });
  server.on('tlsClientError', () => {}); // the client that refuses our certificate
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.cleanup(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return server.address().port;
}

async function start(t, host, args) {
  const agent = await Agent.start({ args: ['--port=0'] });
  t.cleanup(() => agent.stop());
  const port = await gateway(t, agent);
  return t.start({
    providers: 'url',
    args: ['--tunnel-url', `wss://${host}:${port}/ws/client`, '--open-timeout-ms', '1500', ...args],
    env: { PTYCAST_TUNNEL_TOKEN: agent.token },
  });
}

test('carries a flood over TLS, byte for byte', async (t) => {
  const service = await start(t, 'localhost', ['--ca-file', key('ca.pem')]);
  const shell = await PatternShell.create(service.client(), 'lines', { sandbox: { provider: 'url' } });
  const stream = await shell.view();
  await shell.write(3_000_000);
  shell.assert(0, (await stream.to(shell.written)).bytes);
  await shell.exit(9);
  assert.equal((await stream.first('exit')).data.exit_code, 9);
});

test('refuses a certificate of an unknown CA, and one for another name', async (t) => {
  for (const [host, args] of [['localhost', []], ['127.0.0.1', ['--ca-file', key('ca.pem')]]]) {
    const service = await start(t, host, args);
    const answer = await service.client().post('/sessions?wait=open', { json: { sandbox: { provider: 'url' } } });
    answer.isProblem(502, 'tunnel-failed');
  }
});
