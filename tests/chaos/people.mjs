// people.mjs -- those who use the replicas while they are in trouble: a session with its typist and viewers, and somebody who
// makes short sessions again and again.
import assert from 'node:assert/strict';
import { program } from '../e2e/lib/flavour.mjs';
import { Follower } from '../e2e/lib/follower.mjs';
import { assertPattern } from '../e2e/lib/pattern.mjs';
import { Typist } from '../e2e/lib/typist.mjs';
import { until } from '../e2e/lib/wait.mjs';
import { Judge, Sum } from './stream.mjs';

export const HANG_MS = 15_000;
const END_MS = 2 * HANG_MS;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Asks until the answer has one of these statuses. connect() gives the client for each try. */
export async function insist(connect, method, path, statuses, options = {}) {
  const end = performance.now() + HANG_MS;
  for (let last, tries = 1; ; tries++) {
    try {
      const answer = await connect().request(method, path, { timeout: 5000, ...options });
      if (statuses.includes(answer.status)) return Object.assign(answer, { tries });
      last = `${answer.status} ${answer.text}`;
      assert.ok([429, 503].includes(answer.status), `${method} ${path} -> ${last}`);
    } catch (error) {
      if (error.name === 'AssertionError' || error.constructor.name === 'ContractError') throw error;
      last = error.message;
    }
    assert.ok(performance.now() < end, `hang: ${method} ${path} for ${HANG_MS} ms, at last ${last}`);
    await pause(30);
  }
}

/** A session whose shell writes a stream, with viewers, and somebody who types. */
export class Watched {
  /** options: id, sandbox, rate (bytes a second), viewers (how many). */
  static async open(cluster, random, options) {
    const one = new Watched(cluster, random, options);
    const { id, sandbox, rate } = options;
    const command = [program('tests/tools/stream'), String(one.seed), String(rate)];
    const answer = await insist(() => random.pick(cluster.replicas).as(), 'POST', '/sessions?wait=open', [200, 201], {
      json: { id, sandbox, command },
    });
    assert.equal(answer.json.state, 'open', answer.text);
    one.epoch = answer.json.epoch;
    for (let i = 0; i < options.viewers; i++) one.#watch(i);
    await one.viewers[0].viewer.reached(1); // before that, what is typed is echoed
    return one;
  }

  constructor(cluster, random, { id }) {
    Object.assign(this, { cluster, random, id });
    this.path = `/sessions/${id}`;
    this.seed = random.word();
    this.viewers = [];
    this.typed = new Sum();
    this.typist = new Typist(() => random.pick(cluster.replicas).as(), id, { timeout: 5000 });
  }

  // Every second one stays with one replica as long as that can be reached; others go by the balancer.
  #watch(i) {
    const fixed = i % 2 ? this.random.pick(this.cluster.replicas) : null;
    const judge = new Judge(this.seed);
    const where = () => (fixed?.isRunning && !fixed.isPaused ? fixed : this.cluster.balancer);
    const viewer = new Follower(() => where().as(), this.id, {
      take: (bytes, at) => judge.take(bytes, at),
      hangMs: HANG_MS,
      retryMs: 50,
      checkEvery: 100,
    });
    viewer.expects(true);
    this.viewers.push({ viewer, judge, where: fixed?.name ?? 'balancer' });
  }

  /** Types until isOver() and once more: messages of all sizes, up to three under way, by any replicas. */
  async type(isOver) {
    const { random, typist } = this;
    while (!isOver()) {
      const messages = Array.from({ length: 1 + random.below(3) }, (_, i) => {
        const size = random.chance(0.02) ? 40_000 : random.chance(0.3) ? 300 : 5;
        const text = `${typist.seq + 1 + i}:${random.word().toString(36)};`;
        return Buffer.from(text.repeat(1 + random.below(size) / text.length));
      });
      for (const message of messages) this.typed.add(message);
      await Promise.all(messages.map((message) => typist.type(message, 2 * HANG_MS)));
      if (random.chance(0.05)) await this.#resize();
      await pause(random.between(0, 60));
    }
  }

  #resize() {
    const json = { cols: 60 + this.random.below(100), rows: 20 + this.random.below(30) };
    return insist(() => this.random.pick(this.cluster.replicas).as(), 'POST', `${this.path}/resize`, [204], { json });
  }

  /** Ends the stream. Fails unless every viewer saw all of it, and the shell all that was typed. */
  async finish() {
    await this.typist.type('\x04', 2 * HANG_MS);
    for (const { viewer, judge, where } of this.viewers) {
      const exit = await viewer.ended(END_MS);
      assert.deepEqual(exit, { reason: 'exited', exit_code: 0, signal: null });
      try {
        judge.finish(this.typed);
      } catch (error) {
        error.message = `${this.id} by ${where}: ${error.message}`;
        throw error;
      }
      await viewer.close();
    }
    const { viewers } = this;
    for (const { judge } of viewers) assert.equal(String(judge.seen), String(viewers[0].judge.seen));
    for (const replica of this.cluster.replicas)
      await until(async () => {
        const { state, ended, epoch } = (await replica.as().get(this.path)).is(200).json;
        assert.equal(epoch, this.epoch);
        return state === 'ended' && ended.exit_code === 0;
      }, `end of ${this.id} at ${replica.name}`);
  }
}

/** Somebody who makes short sessions by the balancer, looks on until each has ended, and forgets it. */
export class Passerby {
  constructor(cluster, random, name, sandbox) {
    Object.assign(this, { cluster, random, name, sandbox });
    this.made = 0;
    this.failed = []; // sessions that never began: their replica died first
    this.doubtful = new Set(); // what was asked of one that hung, and then of another, may be done a second time
  }

  async run(isOver) {
    const connect = () => this.cluster.balancer.as();
    while (!isOver()) {
      const id = `${this.name}-${this.made++}`;
      const path = `/sessions/${id}`;
      const bytes = 64 + this.random.below(60_000);
      const code = this.random.below(200);
      const command = [program('tests/tools/pattern'), 'lines', String(bytes), 'exit', String(code)];
      const json = { id, sandbox: this.sandbox, command };
      const { tries } = await insist(connect, 'POST', '/sessions', [200, 201], { json });
      if (tries > 1) this.doubtful.add(id);
      const viewer = new Follower(connect, id, { take: (data, at) => assertPattern('lines', at, data), hangMs: END_MS });
      const exit = await viewer.ended(END_MS);
      if (viewer.offset === 0 && ['lost', 'failed'].includes(exit.reason)) this.failed.push(`${id} ${exit.reason}`);
      else assert.deepEqual([exit, viewer.offset], [{ reason: 'exited', exit_code: code, signal: null }, bytes], id);
      await viewer.close();
      await insist(connect, 'DELETE', path, [204, 404]);
      await pause(this.random.between(0, 500));
    }
  }
}
