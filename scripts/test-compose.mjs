// test-compose.mjs: docker-compose.yml run for real, by podman on Debian 12 as root. Three replicas, a Redis and a load
// balancer, with a container beside them that plays Runloop; a stream and typed input through the balancer while replicas and
// Redis are killed and all replicas are restarted. Takes all down again.
//
//   node scripts/test-compose.mjs [--keep]      --keep: the images, for the next run (in build/compose)
//
// The images of Redis and HAProxy are built here from Debian's packages, under the names that docker-compose.yml
// gives. What the programs said is in build/log/compose.log; of containers, when a step fails, in build/log/compose-NAME.log.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Judge, Sum } from '../tests/chaos/stream.mjs';
import { Machine } from '../tests/compose/machine.mjs';
import { Client } from '../tests/e2e/lib/client.mjs';
import { Follower } from '../tests/e2e/lib/follower.mjs';
import { EventStream } from '../tests/e2e/lib/sse.mjs';
import { Typist } from '../tests/e2e/lib/typist.mjs';
import { until, within } from '../tests/e2e/lib/wait.mjs';
import { Socket } from '../tests/e2e/lib/ws.mjs';

const tree = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const dir = join(tree, 'build/compose');
const logs = join(tree, 'build/log');
const PROJECT = 'ptycast-test';
const REPLICAS = ['ptycast-1', 'ptycast-2', 'ptycast-3'];
const RATE = 200_000; // bytes a second of the stream
const TUNNEL_PORT = 9443;

const IMAGES = {
  'redis:7': `FROM debian:12
RUN apt-get update && apt-get install -y --no-install-recommends redis-server
RUN mkdir /data && chown redis:redis /data
VOLUME /data
WORKDIR /data
CMD ["redis-server"]
`,
  'haproxy:2.6': `FROM debian:12
RUN apt-get update && apt-get install -y --no-install-recommends haproxy
USER haproxy
STOPSIGNAL SIGUSR1
CMD ["haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]
`,
  'ptycast-test-sandboxes': `FROM debian:12
RUN apt-get update && apt-get install -y --no-install-recommends nodejs procps
`,
};

const secret = () => randomBytes(24).toString('hex');
const container = (service) => `${PROJECT}_${service}_1`;
const keep = process.argv.includes('--keep');
const total = { passed: 0, failed: 0 };

mkdirSync(logs, { recursive: true });
const machine = new Machine(dir, join(logs, 'compose.log'));

async function step(name, fn) {
  const start = Date.now();
  const result = await fn().catch((error) => {
    throw new Error(`${name}\n${error.stack}`);
  });
  total.passed++;
  const note = typeof result === 'string' ? `: ${result}` : '';
  console.log(`ok   ${name}${note} (${((Date.now() - start) / 1000).toFixed(1)} s)`);
}

const freePort = () =>
  new Promise((done) => {
    const server = net.createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });

// --- what is there ---

const key = secret();
const runloopKey = `ak_${secret()}`;
const redisPassword = secret();

async function compose(...args) {
  const files = [join(tree, 'docker-compose.yml'), join(tree, 'tests/compose/sandboxes.yml')];
  const project = ['-p', PROJECT, ...files.flatMap((file) => ['-f', file])];
  await machine.run('podman-compose', [machine.runArgs, ...project, ...args], { cwd: tree, env: composeEnv });
}
let composeEnv;

async function makeKeys() {
  const keys = join(dir, 'keys');
  mkdirSync(keys, { recursive: true });
  const at = (name) => join(keys, name);
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '7'];
  const ca = ['-x509', '-subj', '/CN=test', '-keyout', at('ca.key.pem'), '-out', at('ca.pem')];
  await machine.run('openssl', ['req', ...curve, ...ca]);
  await machine.run('openssl', [
    ...['req', ...curve, '-x509', '-subj', '/CN=sandboxes', '-addext', 'subjectAltName=DNS:sandboxes'],
    ...['-addext', 'basicConstraints=critical,CA:FALSE', '-CA', at('ca.pem'), '-CAkey', at('ca.key.pem')],
    ...['-keyout', at('sandboxes.key.pem'), '-out', at('sandboxes.pem')],
  ]);
  for (const name of ['ca.pem', 'sandboxes.pem', 'sandboxes.key.pem']) chmodSync(at(name), 0o644);
  return keys;
}

const addressOf = (service) => machine.address(container(service));
const isRunning = async (service) =>
  (await machine.podman('inspect', '-f', '{{.State.Running}}', container(service))) === 'true';

/** A caller of one replica, past the balancer. */
async function direct(service) {
  return new Client(`http://${await addressOf(service)}:8080`, key);
}

async function readiness(service) {
  const client = await direct(service);
  const answer = await client.get('/readyz', { timeout: 2000 }).catch(() => null);
  client.close();
  return answer && answer.status;
}

const ready = (service) => until(async () => (await readiness(service)) === 200, `${service} is ready`, 30_000);

async function start(service) {
  if (!(await isRunning(service))) await machine.podman('start', container(service));
}

/** The replicas that hold a tunnel to a sandbox, without that one: with one session, its owner. */
async function owners(without) {
  const remote = new RegExp(`:${TUNNEL_PORT.toString(16).toUpperCase()} 01 `);
  const found = [];
  for (const service of REPLICAS) {
    if (service === without || !(await isRunning(service))) continue;
    const table = await machine.podman('exec', container(service), 'cat', '/proc/net/tcp').catch(() => '');
    if (remote.test(table)) found.push(service);
  }
  return found;
}

const owner = () =>
  until(async () => {
    const [one, ...others] = await owners();
    return one && others.length === 0 && one;
  }, 'one replica has the tunnel');

// --- the test ---

async function main() {
  if (process.getuid() !== 0) throw new Error('this needs root: podman, debootstrap');
  await step('podman and what goes with it are installed', () => machine.installPackages());
  await machine.clear({ images: false });
  if (!(await machine.hasImage('debian:12')))
    await step('debian:12 is made from the mirror of apt', () => machine.makeBase('debian:12'));
  await step('the image of ptycast is built', () => machine.build('ptycast', { context: tree }));
  for (const [name, text] of Object.entries(IMAGES))
    if (!(await machine.hasImage(name)))
      await step(`a stand-in for ${name} is built`, () => machine.build(name, { text }));

  const port = await freePort();
  composeEnv = {
    REDIS_PASSWORD: redisPassword,
    PTYCAST_PRIVATE_KEY: '',
    PTYCAST_API_KEYS: `${key}=alice`,
    PUBLISH: `127.0.0.1:${port}`,
    TREE: tree,
    KEYS: await makeKeys(),
    RUNLOOP_KEY: runloopKey,
  };
  const pair = await machine.podman('run', '--rm', 'ptycast', 'keygen');
  composeEnv.PTYCAST_PRIVATE_KEY = pair.match(/PTYCAST_PRIVATE_KEY=([0-9a-f]{64})/)[1];

  const client = new Client(`http://127.0.0.1:${port}`, key);
  await step('docker-compose.yml is up, and all three replicas are ready', async () => {
    await compose('up', '-d', '--no-build');
    for (const service of REPLICAS) await ready(service);
    await until(async () => (await client.get('/readyz', { checked: false }).catch(() => ({}))).status === 200, 'the balancer');
  });
  await step('HEALTHCHECK is content, the user is nobody, the disk is read-only', async () => {
    for (const service of REPLICAS) {
      await machine.podman('healthcheck', 'run', container(service));
      assert.equal(await machine.podman('exec', container(service), 'id', '-u'), '10001');
      const written = await machine.podman('exec', container(service), 'sh', '-c', 'touch /var/lib/ptycast/x').catch(() => 0);
      assert.equal(written, 0, 'a file was written');
    }
  });
  await step('metrics are on their own listener, and not behind the balancer', async () => {
    const answer = await fetch(`http://${await addressOf('ptycast-1')}:9090/metrics`);
    assert.match(await answer.text(), /^ptycast_sessions\{/m);
    assert.equal((await fetch(`${client.url}/metrics`, { headers: { Authorization: `Bearer ${key}` } })).status, 404);
  });

  const control = `http://${await addressOf('sandboxes')}:7000`;
  const order = async (path, body) => {
    const answer = await fetch(control + path, body && { method: 'POST', body: JSON.stringify(body) });
    return answer.json();
  };
  const box = await order('/boxes', { tunnel: 'authenticated' });
  const seed = randomBytes(3).readUIntBE(0, 3);
  const parameters = {
    id: 'compose',
    sandbox: { provider: 'runloop', external_id: box.id, credential: runloopKey, transport: 'agent' },
    command: [join(tree, 'build/tests/tools/stream'), String(seed), String(RATE)],
  };
  await step('a session in a devbox is opened through the balancer, and every replica knows it', async () => {
    const session = await client.createOpen(parameters);
    assert.equal(session.state, 'open', JSON.stringify(session));
    for (const service of REPLICAS) (await (await direct(service)).get('/sessions/compose')).is(200);
    (await client.post('/sessions', { json: parameters })).is(200);
  });

  const judge = new Judge(seed);
  const follower = new Follower(() => client, 'compose', { take: (bytes, at) => judge.take(bytes, at) });
  const typist = new Typist(() => client, 'compose');
  const typed = new Sum();
  let stops = false;
  const typing = (async () => {
    for (let line = 1; !stops; line++) {
      const text = `line ${line}\n`;
      await typist.type(text);
      typed.add(Buffer.from(text));
      await new Promise((done) => setTimeout(done, 20));
    }
  })();
  typing.catch((error) => (follower.error ??= error));
  follower.expects(true);
  /** Another so many seconds of the stream, and typed input meanwhile. */
  const goesOn = async (seconds = 1) => {
    const before = typist.seq;
    await follower.reached(follower.offset + seconds * RATE, 30_000);
    await until(() => typist.seq > before + 3 || stops, 'typed input arrives', 15_000);
    return `at ${(follower.offset / 1e6).toFixed(1)} MB, ${typist.seq} messages typed`;
  };

  await step('its stream and typed input pass the balancer', () => goesOn(2));
  await step('a WebSocket passes the balancer', async () => {
    const socket = await Socket.open(client, 'compose', { mode: 'binary', since: follower.lastId });
    assert.ok(!socket.refused, JSON.stringify(socket.refused));
    await socket.until((event) => event.event === 'output', 'output');
    socket.close();
  });
  await step('the replica that has it is killed: the stream goes on', async () => {
    const killed = await owner();
    await machine.podman('kill', '-s', 'KILL', container(killed));
    const taken = await until(async () => (await owners(killed))[0], 'another replica takes it', 30_000);
    const said = await goesOn();
    await start(killed);
    await ready(killed);
    return `${killed}, then ${taken}; ${said}`;
  });
  await step('the replica that has it hangs: another takes it, and the stream goes on', async () => {
    const hung = await owner();
    await machine.podman('kill', '-s', 'STOP', container(hung));
    const taken = await until(async () => (await owners(hung))[0], 'another replica takes it', 30_000);
    const said = await goesOn();
    await machine.podman('kill', '-s', 'CONT', container(hung));
    await ready(hung);
    assert.equal(await owner(), taken, 'it stays where it is');
    return `${hung}, then ${taken}; ${said}`;
  });
  await step('Redis is killed and comes back: the stream at its owner never stops, all others go on', async () => {
    const has = await owner();
    const local = await EventStream.open(await direct(has), 'compose', { format: 'base64', since: follower.lastId });
    await machine.podman('kill', '-s', 'KILL', container('redis'));
    for (const service of REPLICAS)
      await until(async () => (await readiness(service)) === 503, `${service} says that it is not ready`, 15_000);
    const { offset } = local.position ?? { offset: follower.offset };
    await local.when(() => local.position.offset > offset + RATE, 'output without Redis');
    local.close();
    (await client.get('/healthz')).is(200);
    await start('redis');
    for (const service of REPLICAS) await ready(service);
    return `the owner is ${has}; ${await goesOn()}`;
  });
  await step('all three replicas are restarted one by one: the stream goes on', async () => {
    for (const service of REPLICAS) {
      await machine.podman('stop', '-t', '30', container(service));
      const code = await machine.podman('inspect', '-f', '{{.State.ExitCode}}', container(service));
      assert.equal(code, '0', `${service} ended with ${code}`);
      await start(service);
      await ready(service);
      await goesOn(0.5);
    }
    return goesOn();
  });
  await step('no byte of the stream was lost or doubled, and no message', async () => {
    stops = true;
    await within(typing, 'the last message');
    await typist.type('\x04');
    const exit = await follower.ended();
    assert.equal(exit.exit_code, 0, JSON.stringify(exit));
    judge.finish(typed);
    return (
      `${follower.offset} bytes over ${follower.connections} connections, at most ${Math.round(follower.longestGapMs)} ms silent; ` +
      `${typist.seq} messages, ${typist.repeats} tried again, at most ${Math.round(typist.longestMs)} ms until typed`
    );
  });
  await step('nothing is left behind: no shell, no tunnel, no secret where it does not belong', async () => {
    (await client.delete('/sessions/compose')).is(204);
    await until(async () => (await owners()).length === 0, 'no tunnel', 20_000);
    const { processes } = await order(`/boxes/${box.id}`);
    assert.ok(processes.every(({ cmdline }) => cmdline.includes('ptycast-agent')), JSON.stringify(processes));
    const stats = await order('/stats');
    assert.deepEqual([stats.leaks, stats.failures], [[], []]);
    for (const service of [...REPLICAS, 'balancer', 'redis']) {
      const said = await machine.run('sh', ['-c', `podman logs ${container(service)} 2>&1`]);
      for (const text of [key, runloopKey, redisPassword, composeEnv.PTYCAST_PRIVATE_KEY])
        assert.ok(!said.includes(text), `${service} logged a secret`);
    }
  });
  await step('all goes down', () => compose('down', '-v', '-t', '10'));
}

async function saveLogs() {
  for (const service of [...REPLICAS, 'balancer', 'redis', 'sandboxes']) {
    const said = await machine.run('sh', ['-c', `podman logs ${container(service)} 2>&1`], { mayFail: true });
    writeFileSync(join(logs, `compose-${service}.log`), `${said}\n`);
  }
}

let ending;
function end() {
  ending ??= (async () => {
    await machine.clear({ images: !keep }).catch((error) => console.error(`not all was removed: ${error.message}`));
    console.log(`${total.passed} passed, ${total.failed} failed`);
    process.exit(total.failed === 0 ? 0 : 1);
  })();
  return ending;
}
for (const signal of ['SIGINT', 'SIGTERM'])
  process.once(signal, () => {
    total.failed++;
    void end();
  });

try {
  await main();
} catch (error) {
  total.failed++;
  console.log(`FAIL ${error.message}`);
  if (existsSync(dir)) await saveLogs();
}
await end();
