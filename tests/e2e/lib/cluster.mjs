// cluster.mjs -- several replicas of the service on one Redis, each by a link of its own that can be cut, behind
// a load balancer.
import assert from 'node:assert/strict';
import { readFileSync, readdirSync, rmSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { Client } from './client.mjs';
import { Machine } from './machine.mjs';
import { Proxy } from './proxy.mjs';
import { Redis, freePort } from './redis.mjs';
import { makePair } from './sealing.mjs';
import { Agent, Service, isSanitized, keys } from './service.mjs';
import { until, within } from './wait.mjs';

export class Replica extends Service {
  constructor(cluster, name, link, { args = [], env = {}, elsewhere = [], ...options }) {
    super({
      ...options,
      // The last one counts.
      args: ['--store', `redis://127.0.0.1:${link.port}`, '--local-on-stop', 'keep', '--drain-s', '1', ...args],
      env: { PTYCAST_PRIVATE_KEY: cluster.pair.privateKey, ...env },
    });
    this.cluster = cluster;
    this.name = name;
    this.link = link; // to Redis
    this.isElsewhere = elsewhere.includes(name);
  }

  /** Starts it, always on the same port, and learns what it calls itself in Redis. */
  async launch() {
    this.port ||= await freePort();
    if (this.isElsewhere && !this.machine) {
      this.machine = await Machine.start(this.link.port, this.port);
      this.options.prefix = this.machine?.prefix ?? [];
    }
    await this.cluster.oneAtATime(async () => {
      const before = await this.cluster.replicaIds();
      await super.launch();
      this.key = await until(
        async () => (await this.cluster.replicaIds()).find((id) => !before.includes(id)),
        `sign of life of ${this.name}`,
      );
    });
    this.isPaused = false;
  }

  get isRunning() {
    return this.process !== undefined && !this.process.ended;
  }

  /** A caller that is kept: alice the admin unless said otherwise. */
  as(credential = keys.admin) {
    this.callers ??= new Map();
    if (!this.callers.has(credential)) this.callers.set(credential, this.client(credential));
    return this.callers.get(credential);
  }

  /** SIGSTOP: connections stay, and nothing is answered. */
  pause() {
    process.kill(this.process.pid, 'SIGSTOP');
    this.isPaused = true;
  }

  /** SIGCONT. */
  resume() {
    if (this.isPaused && this.isRunning) process.kill(this.process.pid, 'SIGCONT');
    this.isPaused = false;
  }

  /** SIGTERM; resolves at its end. Fails unless that is in order. */
  async drain() {
    this.terminate();
    const { code, signal } = await within(this.process.exit, `end of ${this.name} after SIGTERM`);
    assert.deepEqual({ code, signal }, { code: 0, signal: null }, this.process.log.slice(-3000));
  }

  /** Redis refuses it, and what it had is cut. */
  cutOff() {
    this.link.refusing = true;
    this.link.cut();
  }

  /** Nothing passes between it and Redis, and nobody is told. */
  silence() {
    this.link.hold();
  }

  /** After cutOff() and silence(). */
  rejoin() {
    this.link.refusing = false;
    this.link.release();
  }

  async readiness() {
    return (await this.as().get('/readyz')).json;
  }

  /** Waits until /readyz is 200. */
  ready() {
    return until(async () => (await this.as().get('/readyz')).status === 200, `${this.name} is ready`);
  }

  async stop() {
    this.resume();
    if (this.isRunning) await super.stop();
    this.machine?.stop();
    for (const client of this.clients) client.close();
    rmSync(this.dir, { recursive: true, force: true });
  }
}

/**
 * Round robin to the replicas that answer; those that drain get no new connections, and those that answer no longer
 * lose the ones they have.
 */
export class Balancer {
  static async start(replicas) {
    const balancer = new Balancer(replicas);
    await new Promise((resolve) => balancer.server.listen(0, '127.0.0.1', resolve));
    balancer.port = balancer.server.address().port;
    balancer.url = `http://127.0.0.1:${balancer.port}`;
    for (const one of balancer.members) balancer.#check(one);
    return balancer;
  }

  #next = 0;

  constructor(replicas) {
    this.members = replicas.map((replica) => ({ replica, takes: true, pairs: new Set() }));
    this.server = net.createServer((near) => this.#connect(near));
  }

  /** A caller each of whose requests may come to another replica. */
  as(credential = keys.admin) {
    const client = new Client(this.url, credential);
    client.agent = new http.Agent({ keepAlive: false });
    return client;
  }

  // A draining one says so; any other answer is one of a living replica.
  #check(member) {
    const limit = isSanitized ? 5000 : 1000;
    const request = http.get(
      { host: '127.0.0.1', port: member.replica.port, path: '/readyz', agent: false, timeout: limit },
      (response) => {
        let text = '';
        response.on('data', (chunk) => (text += chunk));
        response.on('end', () => this.#judge(member, !/"(draining|starting)"/.test(text)));
        response.on('error', () => this.#judge(member, false, true));
      },
    );
    request.on('timeout', () => request.destroy(new Error('late')));
    request.on('error', () => this.#judge(member, false, true));
  }

  #judge(member, takes, isDead = false) {
    member.takes = takes;
    if (isDead) for (const end of member.pairs) end();
    if (!this.isStopped) member.timer = setTimeout(() => this.#check(member), 100);
  }

  #connect(near, tried = new Set()) {
    const { length } = this.members;
    const order = Array.from({ length }, (_, i) => this.members[(this.#next + i) % length]);
    const member = order.find((one) => one.takes && !tried.has(one));
    this.#next++;
    if (member === undefined) {
      near.destroy();
      return;
    }
    tried.add(member);
    const far = net.connect(member.replica.port, '127.0.0.1');
    let isThere = false;
    const end = () => {
      near.destroy();
      far.destroy();
      member.pairs.delete(end);
    };
    member.pairs.add(end);
    far.on('connect', () => {
      isThere = true;
      near.pipe(far);
      far.pipe(near);
    });
    far.on('error', () => {
      if (isThere) return end();
      member.pairs.delete(end);
      near.removeAllListeners('error');
      near.removeAllListeners('close');
      this.#connect(near, tried);
    });
    far.on('close', () => isThere && end());
    near.on('error', end);
    near.on('close', end);
  }

  stop() {
    this.isStopped = true;
    for (const { timer, pairs } of this.members) {
      clearTimeout(timer);
      for (const end of [...pairs]) end();
    }
    this.server.close();
  }
}

export class Cluster {
  /**
   * options: replicas (how many: 3), redis (as for Redis.start()), agent (arguments of one that all reach by provider
   * url), elsewhere (names of replicas that are on another machine: see machine.mjs), and of each replica args, env,
   * providers, keys.
   */
  static async start(options = {}) {
    const cluster = new Cluster();
    try {
      await cluster.#launch(options);
    } catch (error) {
      await cluster.stop().catch(() => {});
      throw error;
    }
    return cluster;
  }

  /** The same, stopped behind the test. */
  static async of(t, options) {
    const cluster = await Cluster.start(options);
    t.cleanup(() => cluster.stop());
    return cluster;
  }

  #last = Promise.resolve();

  constructor() {
    this.replicas = [];
    this.pair = makePair();
  }

  async #launch({ replicas = 3, redis = {}, agent, ...options }) {
    this.redis = await Redis.start(redis);
    if (agent) options = { providers: 'url', ...options, ...(await this.#reach(agent, options)) };
    for (let i = 0; i < replicas; i++) {
      const link = await Proxy.start(this.redis.port);
      const replica = new Replica(this, 'ABCDEFGH'[i], link, options);
      this.replicas.push(replica);
      await replica.launch();
    }
    this.balancer = await Balancer.start(this.replicas);
  }

  // An agent, and what a replica must be told of it.
  async #reach(agentArgs, { args = [], env = {} }) {
    this.agent = await Agent.start({ args: ['--port=0', ...agentArgs] });
    this.tunnel = await Proxy.start(this.agent.port);
    return {
      args: ['--tunnel-url', `ws://127.0.0.1:${this.tunnel.port}/ws/client`, ...args],
      env: { PTYCAST_TUNNEL_TOKEN: this.agent.token, ...env },
    };
  }

  /** Runs fn when those before have come to an end. */
  oneAtATime(fn) {
    const mine = this.#last.then(fn);
    this.#last = mine.catch(() => {});
    return mine;
  }

  replicaIds() {
    return this.redis.cli('SMEMBERS', 'ptycast:replicas');
  }

  /** alice the admin at the i-th replica. */
  at(i, credential) {
    return this.replicas[i].as(credential);
  }

  /** The record of a session, as in docs/redis.md. */
  record(id) {
    return this.redis.hash(`ptycast:session:{${id}}`);
  }

  /** The replica that has the session, or undefined. */
  async owner(id) {
    const { owner } = await this.record(id);
    return this.replicas.find((replica) => replica.key === owner);
  }

  /** Waits until another replica than this one has the session and a tunnel to it: that one. */
  taken(id, from, ms) {
    return until(
      async () => {
        const owner = await this.owner(id);
        if (!owner || owner === from || !owner.isRunning) return false;
        const { status, json } = await owner.as().get(`/sessions/${id}`);
        return status === 200 && ['open', 'ended'].includes(json.state) && owner;
      },
      `takeover of ${id} from ${from.name}`,
      ms,
    );
  }

  /** Pids of what the replicas have started on this machine, and what those have started: by the HOME that they got. */
  strays() {
    const homes = this.replicas.map(({ dir }) => `HOME=${dir}`);
    const own = new Set(this.replicas.map(({ process }) => process?.pid));
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name) && !own.has(Number(name)))
      .filter((pid) => {
        try {
          return readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0').some((line) => homes.includes(line));
        } catch {
          return false; // it has just ended
        }
      })
      .map(Number);
  }

  async stop() {
    this.balancer?.stop();
    for (const replica of this.replicas) replica.rejoin();
    if (this.redis) {
      if (!this.redis.isRunning) await this.redis.restart();
      this.redis.resume();
      await this.redis.answers();
    }
    const results = await Promise.allSettled(this.replicas.map((replica) => replica.stop()));
    for (const pid of this.strays()) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        /* it has just ended */
      }
    }
    for (const { link } of this.replicas) link.stop();
    this.tunnel?.stop();
    await this.agent?.stop();
    await this.redis?.stop();
    const failed = results.find((one) => one.status === 'rejected');
    if (failed) throw failed.reason;
  }
}
