// service.mjs -- `ptycast serve` and `ptycast-agent` as child processes of a test file. Each has a
// directory of its own; what they log is shown when a test fails.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { test as nodeTest } from 'node:test';
import { Client } from './client.mjs';
import { flavour, program } from './flavour.mjs';
import { DEADLINE_MS, deferred, within } from './wait.mjs';

const secret = (name) => `${name}-${randomBytes(12).toString('hex')}`;

/** Credentials of every service that does not say otherwise. */
export const keys = {
  admin: secret('ka'), // subject alice
  writer: secret('kw'), // alice
  viewer: secret('kv'), // alice
  stranger: secret('ks'), // bob, admin
  operator: secret('ko'), // root
};
const apiKeys =
  `${keys.admin}=alice,${keys.writer}=alice:write,${keys.viewer}=alice:view,` +
  `${keys.stranger}=bob:admin,${keys.operator}=root:operator`;

const processes = new Set(); // that run
const crashed = new Set(); // that ended by a signal of their own
// A test runner that gives up on this file must not leave them behind.
process.on('exit', () => {
  for (const { child } of processes) child.kill('SIGKILL');
});

/** A child process: its stderr is kept, its end is waited for. */
export class Child {
  constructor(file, args, { env = {}, dir }) {
    this.name = file.split('/').at(-1);
    this.log = '';
    this.stdout = '';
    // No proxy and nothing of the caller's that a flag could come from.
    const clean = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^PTYCAST_|_proxy$/i.test(name)));
    this.child = spawn(file, args, {
      cwd: dir,
      env: { ...clean, HOME: dir, TMPDIR: dir, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.pid = this.child.pid;
    this.exit = new Promise((resolve) => {
      this.child.on('error', (error) => {
        this.log += `${error.message}\n`;
        resolve({ code: null, signal: null, error });
      });
      this.child.on('exit', (code, signal) => {
        this.ended = { code, signal };
        processes.delete(this);
        if (signal !== null && !this.signalled) crashed.add(this);
        resolve(this.ended);
      });
    });
    this.child.stdout.on('data', (data) => (this.stdout += data));
    this.child.stderr.on('data', (data) => {
      this.log += data;
      if (this.log.length > 16e6) this.log = this.log.slice(-8e6);
    });
    processes.add(this);
  }

  /** The first line of stdout that read() likes. */
  async line(read, what) {
    const found = deferred();
    createInterface({ input: this.child.stdout }).on('line', (line) => {
      const value = read(line);
      if (value) found.resolve(value);
    });
    const early = this.exit.then(({ code, signal, error }) => {
      throw new Error(
        `${this.name} ended (${error?.message ?? code ?? signal}) before ${what}:\n${this.log.slice(-3000)}`,
      );
    });
    return within(Promise.race([found.promise, early]), `${this.name}: ${what}`);
  }

  signal(name) {
    this.signalled = true;
    if (!this.ended) this.child.kill(name);
  }

  /** Resident memory in bytes. */
  rss() {
    return Number(readFileSync(`/proc/${this.pid}/status`, 'utf8').match(/^VmRSS:\s+(\d+)/m)[1]) * 1024;
  }
}

const parse = (line) => {
  try {
    return JSON.parse(line);
  } catch {
    return null;
  }
};

export class Service {
  /**
   * options: args (flags), env, providers, port (0), dir (kept from another one), keys (text for
   * --api-keys; null for none), prefix (a command that runs it).
   */
  static async start(options = {}) {
    const service = new Service(options);
    await service.launch();
    return service;
  }

  constructor({ args = [], env = {}, providers = 'local', port = 0, dir, keys: texts = apiKeys, listen, prefix = [] } = {}) {
    this.ownsDir = dir === undefined;
    this.dir = dir ?? mkdtempSync('/tmp/ptc-');
    this.options = { args, env, providers, texts, listen, prefix };
    this.port = port;
    this.clients = [];
    this.logs = ''; // of the processes before this one
  }

  async launch() {
    const { args, env, providers, texts, listen, prefix } = this.options;
    const flags = [
      'serve',
      '--listen',
      listen ?? `127.0.0.1:${this.port}`,
      '--providers',
      providers,
      '--agent',
      program('ptycast-agent'),
      '--store',
      `sqlite:${this.dir}/p.db`,
      '--local-on-stop',
      'end',
      '--log-format',
      'json',
      '--alone-s',
      '60',
      '--forget-s',
      '120',
      ...args,
    ];
    const [file, ...more] = [...prefix, program('ptycast'), ...flags];
    this.process = new Child(file, more, {
      env: { ...(texts && { PTYCAST_API_KEYS: texts }), ...env },
      dir: this.dir,
    });
    const { url } = await this.process.line((line) => {
      const json = parse(line);
      return json?.event === 'listening' && json;
    }, 'listening');
    this.url = url;
    this.port = Number(new URL(url).port);
  }

  /** A caller, alice the admin unless said otherwise; null: without a credential. */
  client(credential = keys.admin, headers = {}) {
    const client = new Client(this.url, credential, headers);
    this.clients.push(client);
    return client;
  }

  get log() {
    return this.logs + this.process.log;
  }

  rss() {
    return this.process.rss();
  }

  /** kill -9, and nothing else. */
  async kill() {
    this.process.signal('SIGKILL');
    await within(this.process.exit, 'death of the service');
  }

  /** The same again: store, port, keys. */
  async restart(changes = {}) {
    this.logs += this.process.log;
    Object.assign(this.options, changes);
    await this.launch();
  }

  /** SIGTERM, once: a second one would end it at once. */
  terminate() {
    if (!this.process.told) this.process.signal('SIGTERM');
    this.process.told = true;
  }

  /** SIGTERM; fails unless it ends in order. Removes its directory. */
  async stop({ remove = true } = {}) {
    for (const client of this.clients) client.close();
    try {
      if (!this.url) return; // it never was there, which is for the test to judge
      this.terminate();
      const { code, signal } = await within(this.process.exit, 'end of the service after SIGTERM', DEADLINE_MS * 2);
      assert.deepEqual({ code, signal }, { code: 0, signal: null }, `exit status\n${this.process.log.slice(-3000)}`);
    } finally {
      this.process.signal('SIGKILL');
      if (remove && this.ownsDir) rmSync(this.dir, { recursive: true, force: true });
    }
  }
}

/**
 * A test; when it fails, the end of what the running services logged is shown. fn gets a context
 * with after(), and start() for a service that is stopped behind the test.
 */
export function test(name, options, fn) {
  if (typeof options === 'function') [options, fn] = [{}, options];
  nodeTest(name, { timeout: DEADLINE_MS * 8, ...options }, async (t) => {
    const cleanups = [];
    t.start = async (settings) => {
      const service = new Service(settings);
      cleanups.push(async () => service.process && (await service.stop()));
      await service.launch();
      return service;
    };
    t.cleanup = (undo) => cleanups.push(undo);
    let failure;
    try {
      await fn(t);
    } catch (error) {
      failure = error;
    }
    if (failure)
      for (const one of [...processes, ...crashed])
        t.diagnostic(
          `${one.name} ${one.pid} ${one.ended ? `ended by ${one.ended.signal}, ` : ''}logged:\n${one.log.slice(-4000)}`,
        );
    for (const one of crashed) failure ??= new Error(`${one.name} ended by ${one.ended.signal}`);
    crashed.clear();
    for (const undo of cleanups.reverse()) {
      try {
        await undo();
      } catch (error) {
        failure ??= error;
      }
    }
    if (failure) throw failure;
  });
}

export const isSanitized = flavour !== 'release';

/** `ptycast-agent` by itself, as somebody runs it in a sandbox. */
export class Agent {
  /** options: mode ("agent"), args (flags), command. Resolves when its handshake line is there. */
  static async start({ mode = 'agent', args = [], command = [], dir, token = secret('agent') } = {}) {
    const agent = new Agent();
    agent.ownsDir = dir === undefined;
    agent.dir = dir ?? mkdtempSync('/tmp/ptc-');
    agent.token = token;
    agent.process = new Child(
      program('ptycast-agent'),
      // An agent that mode client has started stays for a while; its stderr is ours.
      [
        `--mode=${mode}`,
        '--listen=127.0.0.1',
        `--config=${agent.dir}/config.json`,
        ...(mode === 'client' ? ['--idle-exit=300ms', '--linger=1s'] : []),
        ...args,
        ...command,
      ],
      { env: { PTYCAST_AGENT_TOKEN: token }, dir: agent.dir },
    );
    agent.handshake = await agent.process.line((line) => {
      const json = parse(line);
      return typeof json?.port === 'number' && json;
    }, 'handshake');
    agent.port = agent.handshake.port;
    return agent;
  }

  /** Where the original's clients connect to, through another port when given. */
  url(port = this.port) {
    const query = new URLSearchParams({ processId: String(this.handshake.processId), token: this.handshake.token });
    return `ws://127.0.0.1:${port}/ws/client?${query}`;
  }

  async stop() {
    this.process.signal('SIGTERM');
    await within(this.process.exit, 'end of the agent after SIGTERM');
    if (this.ownsDir) rmSync(this.dir, { recursive: true, force: true });
  }

  async kill() {
    this.process.signal('SIGKILL');
    await within(this.process.exit, 'death of the agent');
  }
}
