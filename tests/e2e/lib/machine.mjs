// machine.mjs -- another machine, as far as loopback goes: a network namespace of its own, in which a replica runs. Redis
// is brought in and HTTP out through Unix sockets, which do not care for namespaces.
//
//   node machine.mjs inside DIR REDIS_PORT HTTP_PORT      is what runs in there and relays
import { mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import { fileURLToPath } from 'node:url';

const self = fileURLToPath(import.meta.url);

// Passes what comes to `from` on to `to`; each a port of 127.0.0.1 or the path of a socket. Resolves to the server.
function relay(from, to) {
  const at = (place) => (typeof place === 'number' ? { port: place, host: '127.0.0.1' } : { path: place });
  const server = net.createServer((near) => {
    const far = net.connect(at(to));
    for (const [one, other] of [
      [near, far],
      [far, near],
    ]) {
      one.on('error', () => other.destroy());
      one.on('close', () => other.destroy());
      one.pipe(other);
    }
  });
  return new Promise((resolve, reject) => {
    server.on('error', reject);
    server.listen(at(from), () => resolve(server));
  });
}

if (process.argv[2] === 'inside') {
  const [dir, redisPort, httpPort] = [process.argv[3], Number(process.argv[4]), Number(process.argv[5])];
  await relay(redisPort, `${dir}/redis.sock`);
  await relay(`${dir}/http.sock`, httpPort);
  console.log('relaying');
}

export class Machine {
  /** Null where namespaces may not be made. redisPort: of the link to Redis; httpPort: of the replica, the same in there. */
  static async start(redisPort, httpPort) {
    const { Child } = await import('./service.mjs');
    const machine = new Machine();
    machine.dir = mkdtempSync('/tmp/ptc-machine-');
    machine.servers = [await relay(`${machine.dir}/redis.sock`, redisPort), await relay(httpPort, `${machine.dir}/http.sock`)];
    machine.process = new Child(
      'unshare',
      [
        '--net', '--map-root-user', 'sh', '-c', 'busybox ifconfig lo up && exec "$@"', 'sh',
        process.execPath, self, 'inside', machine.dir, String(redisPort), String(httpPort),
      ],
      { dir: machine.dir },
    );
    try {
      await machine.process.line((line) => line === 'relaying', 'relaying');
      return machine;
    } catch (error) {
      machine.stop();
      if (/unshare failed|not permitted|ENOENT/.test(machine.process.log)) return null;
      throw error;
    }
  }

  /** What comes before a command that is to run in there. */
  get prefix() {
    return ['nsenter', '--target', String(this.process.pid), '--user', '--net', '--preserve-credentials'];
  }

  stop() {
    this.process.signal('SIGKILL');
    for (const server of this.servers) server.close();
    rmSync(this.dir, { recursive: true, force: true });
  }
}
