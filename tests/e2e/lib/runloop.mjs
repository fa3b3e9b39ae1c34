// runloop.mjs -- a fake Runloop (tests/fakes/runloop) and services that are wired to it. At its end a world
// looks for secrets where none may be: in what the services logged, answered and stored.
import assert from 'node:assert/strict';
import { copyFileSync, existsSync, mkdirSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { CA_FILE, Runloop } from '../../fakes/runloop/runloop.mjs';
import { program } from './flavour.mjs';
import { Service } from './service.mjs';
import { EventStream } from './sse.mjs';
import { DEADLINE_MS, deferred, until, within } from './wait.mjs';

/** Whether the program was built; the sanitizers' builds have no agent for arm64. */
export const arm64Agent = existsSync(program('ptycast-agent-arm64')) && program('ptycast-agent-arm64');

// What says a shell that is none: it is there as soon as it says "ready", and does what a test tells it.
export const READY = ['sh', '-c', 'stty -echo; echo ready; exec cat'];

// A session's parameters: by the PTY service that each devbox has; by the agent that some images bring.
export const NATIVE = { command: undefined, sandbox: { transport: 'native' } };
export const TUNNEL = { sandbox: { transport: 'agent', agent: 'pty-tunnel' } };

/** Puts the images' agent into the box. before: what its script does first. */
export function bring(box, before = '') {
  const real = join(box.dir, 'pty-tunnel-server.real');
  copyFileSync(program('ptycast-agent'), real);
  // Devboxes share this machine: each has its own place where its agent is found.
  box.addProgram('pty-tunnel-server', `#!/bin/sh\n${before}\nexec ${real} --config="$HOME/pty-tunnel/config.json" "$@"\n`);
  mkdirSync(join(box.home, 'pty-tunnel'));
  return box;
}

export class World {
  /** options: fake (of Runloop.start()); args, env, keys: of every service. A service is started unless service is false. */
  static async start({ fake = {}, service = true, ...options } = {}) {
    const world = new World();
    world.fake = await Runloop.start({ holdMs: 300, ...fake });
    world.options = options;
    world.services = [];
    world.secrets = new Set([world.fake.key]);
    world.said = []; // by the services, to all their clients
    world.boxes = [];
    if (service) {
      world.service = await world.serve();
      world.client = world.clientOf(world.service);
    }
    return world;
  }

  /** Another service; options as for start(). */
  async serve({ args = [], env = {}, ...options } = {}) {
    const { args: common = [], env: commonEnv = {}, ...rest } = this.options;
    const service = await Service.start({
      providers: 'local,runloop',
      ...rest,
      ...options,
      args: ['--ca-file', CA_FILE, ...common, ...args],
      env: {
        RUNLOOP_BASE_URL: this.fake.url,
        RUNLOOP_TUNNEL_URL: this.fake.tunnelTemplate,
        ...commonEnv,
        ...env,
      },
    });
    this.services.push(service);
    return service;
  }

  /** A client whose answers are kept. */
  clientOf(service, ...args) {
    const client = service.client(...args);
    const request = client.request.bind(client);
    client.request = async (...what) => {
      const answer = await request(...what);
      this.said.push(`${answer.method} ${answer.path}: ${JSON.stringify(answer.headers)} ${answer.text}`);
      return answer;
    };
    return client;
  }

  /** See the constructor of Devbox. There is an open tunnel unless said otherwise. */
  box(options = {}) {
    const box = this.fake.createBox({ tunnel: 'open', ...options });
    this.boxes.push(box);
    return box;
  }

  sandbox(box, more = {}) {
    return { provider: 'runloop', external_id: box.id, credential: this.fake.key, transport: 'agent', ...more };
  }

  /** POST /sessions; answers whatever comes. parameters: of the session; sandbox: members besides the usual ones. */
  post(box, { sandbox, ...parameters } = {}, { wait = true, client = this.client } = {}) {
    return client.post(`/sessions${wait ? '?wait=open' : ''}`, {
      json: { sandbox: this.sandbox(box, sandbox), command: READY, ...parameters },
    });
  }

  /** A session that is open; when it has the usual command, that is ready. */
  async open(box, parameters, options) {
    const answer = (await this.post(box, parameters, options)).is(201);
    assert.equal(answer.json.state, 'open', answer.text);
    this.learn();
    if (!('command' in (parameters ?? {}))) await this.ready(answer.json.id, options);
    return answer.json;
  }

  /** Waits until READY has said so: before that, what is typed is echoed. */
  ready(id, { client = this.client } = {}) {
    return until(async () => (await this.info(id, client)).offset >= 7, `${id} is ready`);
  }

  /** A session that is being opened. */
  async begin(box, parameters, { client = this.client } = {}) {
    return (await this.post(box, parameters, { wait: false, client })).is(201).json;
  }

  async info(id, client = this.client) {
    return (await client.get(`/sessions/${id}`)).is(200).json;
  }

  /** Waits until the session is in one of the states; resolves to it. */
  reached(id, states, { client = this.client, ms = DEADLINE_MS } = {}) {
    const wanted = [states].flat();
    let last;
    return until(
      async () => {
        last = await this.info(id, client);
        return wanted.includes(last.state) && last;
      },
      `${wanted} of ${id}`,
      ms,
    ).catch((error) => {
      throw new Error(`${error.message}: ${JSON.stringify(last)}`);
    });
  }

  ended(id, options) {
    return this.reached(id, 'ended', options);
  }

  /** A viewer; base64 unless said otherwise. */
  view(id, { client = this.client, ...options } = {}) {
    return EventStream.open(client, id, { format: 'base64', ...options });
  }

  /** All that the command of a session says until it exits: {text, exit}. */
  async run(box, command, parameters, { client = this.client } = {}) {
    const { id } = (await this.post(box, { command, ...parameters }, { client })).is(201).json; // it may have ended
    this.learn();
    const { bytes, events } = await (await this.view(id, { client })).rest();
    return { id, text: bytes.toString(), exit: events.at(-1).data };
  }

  /** Calls of the API for the box, by name, in their order; with tunnels, too, if wanted. */
  calls(box, { tunnels = false } = {}) {
    return this.fake.calls.filter((call) => call.box === box.id && (tunnels || call.name !== 'tunnel'));
  }

  names(box, options) {
    return this.calls(box, options).map((call) => call.name);
  }

  count(box, name) {
    return this.calls(box, { tunnels: true }).filter((call) => call.name === name).length;
  }

  forgetCalls(box) {
    this.fake.calls = this.fake.calls.filter((call) => call.box !== box.id);
  }

  /** See Rules.add(); for one box. */
  misbehave(box, rule) {
    return this.fake.misbehave({ box, ...rule });
  }

  /** Such calls are held until release(); arrived resolves when the first one, or the count-th, is there. */
  hold(box, on, { count = 1, ...rule } = {}) {
    const [arrived, gate] = [deferred(), deferred()];
    let here = 0;
    const held = this.misbehave(box, {
      on,
      times: count,
      ...rule,
      effect: () => {
        if (++here === count) arrived.resolve();
        return gate.promise;
      },
    });
    return {
      arrived: () => within(arrived.promise, `call ${on} of ${box?.id}`),
      release: () => {
        held.remove();
        gate.resolve();
      },
    };
  }

  agents(box) {
    return box.processes().filter(({ cmdline }) => cmdline.includes('/ptycast-agent-'));
  }

  /** What runs in the box besides the agent. */
  others(box) {
    return box.processes().filter(({ cmdline }) => !cmdline.includes('/ptycast-agent-'));
  }

  /** Waits until the box is quiet: at most an agent, no upload. */
  async isClean(box) {
    await until(() => this.others(box).length === 0, `only the agent: ${JSON.stringify(this.others(box))}`).catch(
      (error) => assert.fail(`${error.message} but ${JSON.stringify(this.others(box))}`),
    );
    assert.ok(this.agents(box).length <= 1, JSON.stringify(this.agents(box)));
    const uploads = () => readdirSync(box.home).filter((name) => name.includes('upload'));
    await until(() => uploads().length === 0, `the upload is removed in ${box.id}`);
  }

  /** A directory of the box that is its HOME from now on. */
  moveHome(box, name) {
    box.home = join(box.dir, name);
    mkdirSync(box.home);
    box.env.HOME = box.home;
  }

  /** Takes down secrets as long as they are to be found. */
  learn() {
    this.secrets.add(this.fake.key);
    // Of PTY tunnels, and of what agents said to whoever started them.
    for (const { tunnel } of this.fake.tunnels.values())
      for (const secret of [tunnel.tunnel_key, tunnel.auth_token]) if (secret) this.secrets.add(secret);
    for (const box of this.boxes)
      for (const { stdout } of box.executions.values())
        for (const [, token] of stdout.text().matchAll(/"token":"([^"]{8,})"/g)) this.secrets.add(token);
    for (const box of this.boxes) {
      if (box.tunnel?.auth_token) this.secrets.add(box.tunnel.auth_token);
      if (box.tunnel) this.secrets.add(box.tunnel.tunnel_key);
      const dir = join(box.home, '.ptycast');
      if (box.gone || !existsSync(dir)) continue;
      for (const name of readdirSync(dir).filter((one) => /^agent-.*\.json$/.test(one)))
        try {
          const { token } = JSON.parse(readFileSync(join(dir, name), 'utf8'));
          if (token) this.secrets.add(token);
        } catch {
          /* it has just ended, or is about to start */
        }
    }
  }

  /** Where secrets have come to: names of places. */
  leaks() {
    this.learn();
    const found = [];
    const look = (where, text) => {
      for (const secret of this.secrets) if (text.includes(secret)) found.push(`${secret.slice(0, 6)}... in ${where}`);
    };
    for (const service of this.services) {
      look('the log', service.log);
      if (!existsSync(service.dir)) continue;
      for (const name of readdirSync(service.dir).filter((one) => one.startsWith('p.db')))
        look(name, readFileSync(join(service.dir, name), 'latin1'));
    }
    for (const text of this.said) look(`an answer: ${text.slice(0, 200)}`, text);
    return found;
  }

  /** Ends all. Rejects when a secret was told, or the fake has failed. */
  async stop() {
    const found = this.leaks();
    const results = await Promise.allSettled(this.services.map((service) => service.stop()));
    await this.fake.close();
    const failed = results.find((one) => one.status === 'rejected');
    if (failed) throw failed.reason;
    assert.ok(this.secrets.size > 1 || this.boxes.length === 0, 'secrets were found to look for');
    assert.deepEqual(found, [], 'secrets are told to nobody');
  }
}
