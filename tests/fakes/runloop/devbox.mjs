// devbox.mjs -- a devbox: a scratch directory and the processes that were started in it.
import { randomBytes } from 'node:crypto';
import { EventEmitter } from 'node:events';
import {
  chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, realpathSync, rmSync, symlinkSync, writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, isAbsolute, join, normalize } from 'node:path';
import { Execution } from './execution.mjs';
import { MARKER, find, killOnce } from './processes.mjs';

const SYSTEM_PATH = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];
const id = (prefix) => `${prefix}${randomBytes(8).toString('hex')}`;

const systemPath = [...new Set(SYSTEM_PATH.filter(existsSync).map((dir) => realpathSync(dir)))];

// Copies of directories of the PATH, by links, without some programs. They take long to make: all fakes
// of this process share them.
const copies = new Map();
let copiesDir = null;
process.on('exit', () => copiesDir && rmSync(copiesDir, { recursive: true, force: true }));

function copyWithout(dir, absent) {
  const key = [dir, ...absent].join(' ');
  if (!copies.has(key)) {
    copiesDir ??= mkdtempSync(join(tmpdir(), 'fake-path-'));
    const copy = join(copiesDir, String(copies.size));
    mkdirSync(copy);
    for (const name of readdirSync(dir)) if (!absent.includes(name)) symlinkSync(join(dir, name), join(copy, name));
    copies.set(key, copy);
  }
  return copies.get(key);
}

/** A shell that keeps its directory and variables from one command to the next; one at a time. */
class NamedShell {
  constructor(box, name) {
    this.state = join(box.dir, `shell-${Buffer.from(name).toString('hex')}`);
    this.last = Promise.resolve();
  }

  script(command) {
    const [directory, variables] = [`"${this.state}.pwd"`, `"${this.state}.env"`];
    return (
      `if [ -f ${directory} ]; then . ${variables}; cd "$(cat ${directory})"; fi\n` +
      `trap 'pwd >${directory}; export -p >${variables}' EXIT\n${command}\n`
    );
  }

  /** Starts execution when those before it have ended. */
  queue(execution) {
    const turn = this.last.then(() => {
      if (execution.status === 'queued') execution.start();
      return execution.reaches(['completed'], 2 ** 31 - 1);
    });
    this.last = turn;
  }
}

export class Devbox extends EventEmitter {
  /**
   * options: id, name, status ('running'), tunnel (null, 'open', 'authenticated'), arch ('x86_64',
   * 'arm64'), shell ('/bin/sh': what runs the commands), noBash, sudo (true: a sudo that works without
   * asking), without (names of programs that are not there), env, ports, holdsOpen (a command is not completed
   * while somebody holds its output), stdinKills (send_std_in ends the command), bootMs, suspendMs,
   * pty.
   */
  constructor(fake, options = {}) {
    super();
    this.setMaxListeners(0);
    this.fake = fake;
    this.id = options.id ?? id('dbx_');
    this.name = options.name ?? null;
    this.arch = options.arch ?? 'x86_64';
    this.bootMs = options.bootMs ?? 20;
    this.suspendMs = options.suspendMs ?? 5;
    this.shell = options.shell ?? '/bin/sh';
    this.holdsOpen = options.holdsOpen ?? false;
    this.stdinKills = options.stdinKills ?? false;
    this.keepAliveTimeSeconds = options.keepAliveTimeSeconds ?? 3600;
    this.metadata = options.metadata ?? {};
    this.userParameters = options.userParameters ?? null;
    this.marker = id('box-');
    this.createTimeMs = Date.now();
    this.endTimeMs = null;
    this.failureReason = null;
    this.shutdownReason = null;
    this.transitions = [];
    this.executions = new Map();
    this.byCommandId = new Map();
    this.shells = new Map();
    this.uploads = []; // {path, file, size, filename, type}
    this.keepAlives = 0;
    this.snapshots = 0; // in progress: shutdown is refused
    this.statuses = []; // to be shown instead of the real one, one at each look
    this.waitAnswersAll = false; // wait_for_status answers 200 with any status of statuses
    this.sse = {}; // see streamLog()
    this.pty = options.pty ?? {}; // see pty.mjs
    this.ptySessions = new Map();
    this.ports = new Set(options.ports); // not of its own processes, but behind its tunnels all the same
    this.sockets = new Set(); // connections through its tunnels: see tunnel.mjs
    this.tunnel = null;
    this.makeDirectory(options);
    this.setStatus(options.status ?? 'running');
    if (options.tunnel) this.enableTunnel({ auth_mode: options.tunnel });
  }

  makeDirectory({ noBash = false, sudo = false, without = [], env = {} }) {
    this.dir = mkdtempSync(join(tmpdir(), 'fake-devbox-'));
    this.home = join(this.dir, 'home');
    this.root = join(this.dir, 'root');
    this.bin = join(this.dir, 'bin'); // in front of the PATH
    for (const dir of [this.home, this.root, this.bin]) mkdirSync(dir);
    this.hasBash = !noBash;
    const absent = [...without, ...(noBash ? ['bash', 'rbash'] : []), ...(sudo ? [] : ['sudo'])].sort();
    if (this.arch === 'arm64')
      this.addProgram('uname', '#!/bin/sh\n[ "$*" = -m ] && echo aarch64 && exit\nexec /usr/bin/uname "$@"\n');
    if (sudo) this.addProgram('sudo', '#!/bin/sh\n[ "$1" = -n ] && shift\nexec "$@"\n');
    const path = systemPath.map((dir) => {
      const here = absent.filter((name) => existsSync(join(dir, name)));
      return here.length ? copyWithout(dir, here) : dir;
    });
    this.env = {
      PATH: [this.bin, ...path].join(delimiter),
      HOME: this.home,
      USER: 'user',
      LANG: 'C.UTF-8',
      [MARKER]: this.marker,
      ...env,
    };
  }

  addProgram(name, script) {
    writeFileSync(join(this.bin, name), script);
    chmodSync(join(this.bin, name), 0o755);
  }

  // --- status ---

  setStatus(status) {
    if (status === this.status) return;
    this.status = status;
    this.transitions.push({ status, transition_time_ms: Date.now() });
    if (status === 'shutdown' || status === 'failure') this.endTimeMs = Date.now();
    this.emit('status', status);
  }

  // After a time, unless something else has happened.
  #later(ms, from, to) {
    setTimeout(() => this.status === from && !this.gone && this.setStatus(to), ms);
  }

  /** The status as the next look shows it. */
  shownStatus() {
    return this.statuses.length ? this.statuses.shift() : this.status;
  }

  boot(through = 'provisioning') {
    this.setStatus(through);
    this.#later(this.bootMs, through, 'running');
  }

  resume() {
    if (this.status === 'suspended' || this.status === 'suspending') this.boot('resuming');
  }

  /** All processes die and tunnels are cut; the disk stays. Resolves when it is suspended. */
  async suspend() {
    if (this.status === 'suspended') return;
    this.setStatus('suspending');
    await this.#stop();
    const { status } = this;
    if (status !== 'suspending') return;
    await new Promise((resolve) => setTimeout(resolve, this.suspendMs));
    if (this.status === 'suspending') this.setStatus('suspended');
  }

  async shutdown(reason = 'api_shutdown') {
    this.shutdownReason = reason;
    this.setStatus('shutdown');
    await this.#stop();
  }

  /** The box breaks: status failure. */
  async fail(reason = 'out_of_memory') {
    this.failureReason = reason;
    this.setStatus('failure');
    await this.#stop();
  }

  async #stop() {
    this.cutTunnels();
    this.emit('stop');
    await this.killProcesses();
  }

  /** Ends everything and removes the directory. */
  async close() {
    this.gone = true;
    await this.#stop();
    rmSync(this.dir, { recursive: true, force: true });
  }

  /** The same at the exit of the program, when nothing can be waited for. */
  closeNow() {
    this.gone = true;
    for (let round = 0; round < 100 && !killOnce(this.marker, this.#roots()); round++);
    rmSync(this.dir, { recursive: true, force: true });
  }

  // --- processes ---

  #roots() {
    return [...this.executions.values()].filter((one) => one.status !== 'completed' && one.pid).map((one) => one.pid);
  }

  /** What runs in it: [{pid, cmdline}]. */
  processes() {
    return find(this.marker, this.#roots());
  }

  /** SIGKILL for all; resolves when none is left. */
  async killProcesses() {
    const end = Date.now() + 10_000;
    while (!killOnce(this.marker, this.#roots())) {
      if (Date.now() > end) throw new Error(`${this.id}: processes do not die: ${JSON.stringify(this.processes())}`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  namedShell(name) {
    if (!this.shells.has(name)) this.shells.set(name, new NamedShell(this, name));
    return this.shells.get(name);
  }

  execute(options) {
    const known = options.commandId && this.byCommandId.get(options.commandId);
    if (known) return known;
    const execution = new Execution(this, options);
    this.executions.set(execution.id, execution);
    if (options.commandId) this.byCommandId.set(options.commandId, execution);
    if (options.shellName) this.namedShell(options.shellName).queue(execution);
    else execution.start();
    return execution;
  }

  // --- files ---

  /** Where a path of the API is on this machine; throws when it leads out of the box. */
  locate(path) {
    if (typeof path !== 'string' || path === '' || path.includes('\0')) throw new Error('path is missing');
    let file;
    if (!isAbsolute(path)) file = join(this.home, path);
    else if (normalize(path).startsWith(`${this.dir}/`)) file = normalize(path);
    else file = join(this.root, normalize(path));
    if (!file.startsWith(`${this.dir}/`)) throw new Error('path leads out of the box');
    return file;
  }

  /** Writes a file as an upload does: directories are made, and nothing is executable. */
  writeFile(path, data) {
    const file = this.locate(path);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, data);
    chmodSync(file, 0o644);
    return file;
  }

  // --- tunnels ---

  enableTunnel({ auth_mode = 'open', http_keep_alive = true, wake_on_http = false } = {}) {
    if (this.tunnel) this.removeTunnel();
    this.tunnel = {
      tunnel_key: id('k'),
      auth_mode,
      auth_token: auth_mode === 'authenticated' ? id('tt-') : null,
      create_time_ms: Date.now(),
      http_keep_alive: http_keep_alive ?? true,
      wake_on_http: wake_on_http ?? false,
    };
    this.fake.tunnels.set(this.tunnel.tunnel_key, { box: this, kind: 'tunnel', tunnel: this.tunnel });
    return this.tunnel;
  }

  removeTunnel() {
    if (this.tunnel) this.fake.tunnels.delete(this.tunnel.tunnel_key);
    this.tunnel = null;
    this.cutTunnels();
  }

  createPtyTunnel() {
    const tunnel = { tunnel_key: id('p'), auth_token: id('pt-'), auth_mode: 'authenticated' };
    this.fake.tunnels.set(tunnel.tunnel_key, { box: this, kind: 'pty', tunnel });
    return { tunnel_key: tunnel.tunnel_key, auth_token: tunnel.auth_token };
  }

  /** All connections through its tunnels break off. */
  cutTunnels() {
    for (const pair of this.sockets) pair.cut();
    this.sockets.clear();
  }

  /** Connections through its tunnels stay open, but nothing more comes through until stallTunnels(false). */
  stallTunnels(stalled = true) {
    for (const pair of this.sockets) pair.stall(stalled);
  }

  view(status = this.shownStatus()) {
    return {
      id: this.id,
      status,
      name: this.name,
      create_time_ms: this.createTimeMs,
      end_time_ms: this.endTimeMs,
      capabilities: [],
      metadata: this.metadata,
      launch_parameters: {
        architecture: this.arch,
        keep_alive_time_seconds: this.keepAliveTimeSeconds,
        user_parameters: this.userParameters,
      },
      state_transitions: this.transitions,
      failure_reason: this.failureReason,
      shutdown_reason: this.shutdownReason,
      tunnel: this.tunnel,
    };
  }
}
