// faults.mjs -- what happens to replicas, Redis and the network, one after another and sometimes two at once; what happens, and
// when, follows from the seed. Each fault heals what it has done.
import { until } from '../e2e/lib/wait.mjs';

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Every record names a replica that lives.
const haveOwners = (cluster) =>
  until(async () => {
    const alive = cluster.replicas.filter((one) => one.isRunning && !one.isPaused).map(({ key }) => key);
    const records = await Promise.all((await cluster.redis.keys('ptycast:session:*')).map((key) => cluster.redis.hash(key)));
    return records.every(({ owner }) => owner === undefined || alive.includes(owner));
  }, 'an owner of every session', 15_000);

// run(cluster, random, replica) does it and heals it. on: a replica, or Redis, which is never done beside another one:
// who dies while Redis is away can only be replaced when it is back.
const faults = [
  {
    name: 'kill', on: 'replica', weight: 5,
    async run(cluster, random, replica) {
      await replica.kill();
      await pause(random.between(0, 4000));
      await replica.restart();
    },
  },
  {
    name: 'drain', on: 'replica', weight: 3,
    async run(cluster, random, replica) {
      await replica.drain();
      await pause(random.between(0, 2000));
      await replica.restart();
    },
  },
  {
    name: 'hang', on: 'replica', weight: 4,
    async run(cluster, random, replica) {
      replica.pause();
      await pause(random.between(300, 6000));
      replica.resume();
    },
  },
  {
    name: 'cut off from Redis', on: 'replica', weight: 3,
    async run(cluster, random, replica) {
      replica.cutOff();
      await pause(random.between(0, 5000));
      replica.rejoin();
    },
  },
  {
    name: 'silence to Redis', on: 'replica', weight: 3,
    async run(cluster, random, replica) {
      replica.silence();
      await pause(random.between(300, 6000));
      replica.rejoin();
    },
  },
  {
    name: 'tunnels cut', on: 'replica', weight: 1,
    async run(cluster, random) {
      cluster.tunnel.refusing = true;
      cluster.tunnel.cut();
      await pause(random.between(0, 1000));
      cluster.tunnel.refusing = false;
    },
  },
  {
    name: 'Redis restarted', on: 'redis', weight: 2,
    async run(cluster, random) {
      await cluster.redis.kill();
      await pause(random.between(0, 3500));
      await cluster.redis.restart();
    },
  },
  {
    name: 'Redis emptied', on: 'redis', weight: 1,
    async run(cluster, random) {
      await haveOwners(cluster); // else nobody is there to write some records again
      await cluster.redis.kill();
      await pause(random.between(0, 1500));
      await cluster.redis.restart({ empty: true });
      await until(async () => (await cluster.redis.keys('ptycast:session:*')).length > 0, 'records', 15_000);
      await pause(2000); // those that are busy write theirs last
      await haveOwners(cluster);
    },
  },
  {
    name: 'Redis hangs', on: 'redis', weight: 2,
    async run(cluster, random) {
      cluster.redis.pause();
      await pause(random.between(300, 5000));
      cluster.redis.resume();
    },
  },
  {
    name: 'Redis clients killed', on: 'redis', weight: 2,
    async run(cluster, random) {
      for (let i = random.below(4); i >= 0; i--) {
        await cluster.redis.cli('CLIENT', 'KILL', 'TYPE', random.pick(['normal', 'pubsub']));
        await pause(random.between(0, 300));
      }
    },
  },
];

/** Goes on with faults until stop() was called; then what is under way is healed. */
export class Trouble {
  /**
   * log(text) is told of each; fail(error) of what could not be healed. Between two it waits until bearable(): what one of
   * them may cost, several in a row on the same replica may not.
   */
  constructor(cluster, random, { log, fail, bearable }) {
    Object.assign(this, { cluster, random, log, fail, bearable });
    this.count = {};
    this.hit = new Set(); // replicas that something is done to
  }

  async run() {
    while (!this.isStopped) {
      await until(() => this.bearable(), 'all viewers have got something', 60_000);
      await this.#next();
      await pause(this.random.between(0, this.random.chance(0.4) ? 300 : 2500));
    }
    await until(() => this.hit.size === 0, 'the last fault is healed', 60_000);
  }

  stop() {
    this.isStopped = true;
  }

  async #next() {
    const fault = this.#pick();
    const random = this.random.fork();
    if (fault.on === 'redis') {
      await until(() => this.hit.size === 0, 'the faults before are healed', 60_000);
      await this.#do(fault, random);
      return;
    }
    const replica = this.random.pick(this.cluster.replicas);
    const isFree = !this.hit.has(replica) && this.hit.size < this.cluster.replicas.length - 1;
    if (!isFree) await until(() => this.hit.size === 0, 'the faults before are healed', 60_000);
    const done = this.#do(fault, random, replica);
    if (!this.random.chance(0.3)) await done;
  }

  #pick() {
    let at = this.random.below(faults.reduce((sum, { weight }) => sum + weight, 0));
    return faults.find(({ weight }) => (at -= weight) < 0);
  }

  async #do(fault, random, replica) {
    const name = replica ? `${fault.name} ${replica.name}` : fault.name;
    this.count[fault.name] = (this.count[fault.name] ?? 0) + 1;
    this.hit.add(replica ?? this.cluster.redis);
    this.log(name);
    try {
      await fault.run(this.cluster, random, replica);
      this.log(`healed: ${name}`);
    } catch (error) {
      this.fail(new Error(`${name}: ${error.stack}`));
    } finally {
      this.hit.delete(replica ?? this.cluster.redis);
    }
  }
}
