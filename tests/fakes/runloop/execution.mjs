// execution.mjs -- one command in a devbox, its output kept from the first byte on, and the event
// stream of that output.
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import { constants } from 'node:os';

const DRAIN_MS = 200; // for output of a command that has ended, while others still hold its pipes

/** Output so far: the chunks as they were read. Emits 'more' and 'end'. */
class Log extends EventEmitter {
  chunks = []; // {offset, data}
  size = 0;
  ended = false;

  constructor() {
    super();
    this.setMaxListeners(0);
  }

  add(data) {
    this.chunks.push({ offset: this.size, data });
    this.size += data.length;
    this.emit('more');
  }

  end() {
    this.ended = true;
    this.emit('more');
  }

  /** Bytes from position on, at most max, not over the end of a chunk as it was read unless merge. */
  piece(position, { max = Infinity, merge = false } = {}) {
    if (position >= this.size) return null;
    const from = this.chunks.findLastIndex((chunk) => chunk.offset <= position);
    const wanted = merge || max !== Infinity ? this.chunks.slice(from) : [this.chunks[from]];
    const data = Buffer.concat(wanted.map((chunk) => chunk.data)).subarray(position - this.chunks[from].offset);
    return data.subarray(0, Math.min(data.length, max));
  }

  text() {
    return Buffer.concat(this.chunks.map((chunk) => chunk.data)).toString();
  }

  /** The last n lines, and whether there were more. */
  tail(n) {
    const text = this.text();
    const lines = text.split('\n');
    const open = lines.at(-1) === '' ? 1 : 0; // behind the last newline is no line
    if (lines.length - open <= n) return [text, false];
    return [n > 0 ? lines.slice(-n - open).join('\n') : '', true];
  }
}

export class Execution extends EventEmitter {
  /** options: command, shellName, attachStdin. Emits 'change' with each new status. */
  constructor(box, { command, shellName = null, attachStdin = false, commandId = null }) {
    super();
    this.setMaxListeners(0);
    this.box = box;
    this.id = randomUUID();
    this.command = command;
    this.commandId = commandId;
    this.shellName = shellName;
    this.attachStdin = attachStdin;
    this.status = 'queued';
    this.exitStatus = null;
    this.stdout = new Log();
    this.stderr = new Log();
  }

  get pid() {
    return this.child?.pid;
  }

  start() {
    const { box } = this;
    const text = this.shellName ? box.namedShell(this.shellName).script(this.command) : this.command;
    const child = spawn(box.shell, ['-c', text], {
      cwd: box.home,
      env: box.env,
      stdio: [this.attachStdin ? 'pipe' : 'ignore', 'pipe', 'pipe'],
      detached: true, // a process group of its own, to be killed by
    });
    this.child = child;
    this.status = 'running';
    this.emit('change');
    child.stdin?.on('error', () => {}); // it does not read
    child.stdout.on('data', (data) => this.stdout.add(data));
    child.stderr.on('data', (data) => this.stderr.add(data));
    child.on('error', (error) => {
      this.stderr.add(Buffer.from(`${error.message}\n`));
      this.#complete(127);
    });
    child.on('exit', (code, signal) => {
      const status = code ?? 128 + constants.signals[signal];
      child.on('close', () => this.#complete(status));
      // What is there by then is read first, however late this is called.
      if (!box.holdsOpen) this.drain = setTimeout(() => setImmediate(() => this.#complete(status)), DRAIN_MS);
    });
  }

  #complete(status) {
    clearTimeout(this.drain);
    if (this.status === 'completed') return;
    this.status = 'completed';
    this.exitStatus = status;
    this.stdout.end();
    this.stderr.end();
    this.emit('change');
  }

  /** Resolves with true at one of the statuses, false when the time is up or signal says so. */
  async reaches(statuses, ms, signal) {
    const end = Date.now() + ms;
    while (!statuses.includes(this.status)) {
      const left = end - Date.now();
      if (left <= 0 || signal?.aborted) return false;
      const timer = new AbortController();
      const handle = setTimeout(() => timer.abort(), left);
      const stop = () => timer.abort();
      signal?.addEventListener('abort', stop, { once: true });
      await once(this, 'change', { signal: timer.signal }).catch(() => {});
      signal?.removeEventListener('abort', stop);
      clearTimeout(handle);
    }
    return true;
  }

  kill(group) {
    if (this.status === 'queued') this.#complete(128 + constants.signals.SIGKILL);
    if (this.status === 'completed' || !this.pid) return;
    try {
      process.kill(group ? -this.pid : this.pid, 'SIGKILL');
    } catch {
      /* it has just ended */
    }
  }

  view(lastN = 100) {
    const done = this.status === 'completed';
    const [stdout, stdoutTruncated] = done ? this.stdout.tail(lastN) : [null, null];
    const [stderr, stderrTruncated] = done ? this.stderr.tail(lastN) : [null, null];
    return {
      devbox_id: this.box.id,
      execution_id: this.id,
      status: this.status,
      exit_status: this.exitStatus,
      shell_name: this.shellName,
      stdout,
      stdout_truncated: stdoutTruncated,
      stderr,
      stderr_truncated: stderrTruncated,
    };
  }
}

// Resolves with the first of two events; or with true when neither came in ms.
function first(one, name, other, otherName, ms) {
  return new Promise((resolve) => {
    const settle = (late) => {
      clearTimeout(timer);
      one.off(name, come);
      other.off(otherName, come);
      resolve(late);
    };
    const come = () => settle(false);
    const timer = ms && setTimeout(() => settle(true), ms);
    one.on(name, come);
    other.on(otherName, come);
  });
}

/**
 * Sends a log as server-sent events, from offset to its end. settings (all optional):
 *   chunkBytes      events of so many bytes, cut wherever that is (a cut character becomes U+FFFD)
 *   merge           everything that is there in one event
 *   wireBytes       the bytes of the events written so many at a time
 *   offsets: false  events without offset
 *   resume: 'after' begins behind the chunk at the offset; else with it
 *   shift           added to the offset asked for: -n repeats n bytes
 *   errorAfter, errorCode (408), errorMessage   an error event behind so many data events
 *   idleMs          a 408 error event when there is nothing new for so long
 *   cutAfter        the connection is cut behind so many data events; cutMiddle: within the next one
 *   endAfter        a clean but early end behind so many data events
 *   eol             line end: '\n', '\r\n' or '\r'
 *   comments        a comment before each event
 *   event           a name for the data events
 */
export async function streamLog(log, offset, settings, out) {
  const eol = settings.eol ?? '\n';
  const max = settings.chunkBytes ?? Infinity;
  const options = { max, merge: settings.merge };
  let position = offset;
  if (settings.resume === 'after' && offset > 0) position += log.piece(offset, options)?.length ?? 0;
  position = Math.max(0, position + (offset > 0 ? (settings.shift ?? 0) : 0));

  const write = async (text) => {
    const bytes = Buffer.from(text);
    const step = settings.wireBytes ?? bytes.length;
    for (let at = 0; at < bytes.length && !out.destroyed; at += step) {
      const room = out.write(bytes.subarray(at, at + step));
      // One packet each, as far as we can.
      if (settings.wireBytes) await new Promise((resolve) => setImmediate(resolve));
      if (!room && !out.destroyed) await first(out, 'drain', out, 'close');
    }
  };
  const event = (data, name) => {
    const comment = settings.comments ? `: ping${eol}` : '';
    return `${comment}${name ? `event: ${name}${eol}` : ''}data: ${JSON.stringify(data)}${eol}${eol}`;
  };
  const error = (code, message) => write(event({ code, message }, 'error'));

  for (let sent = 0; !out.destroyed; sent++) {
    if (sent === settings.errorAfter) {
      await error(settings.errorCode ?? 408, settings.errorMessage ?? 'stream idle');
      break;
    }
    if (sent === settings.endAfter) break;
    if (sent === settings.cutAfter && !settings.cutMiddle) {
      out.destroy();
      return;
    }
    let data;
    let idle = false;
    while (!(data = log.piece(position, options)) && !log.ended && !out.destroyed && !idle)
      idle = await first(log, 'more', out, 'close', settings.idleMs);
    if (idle) {
      await error(408, 'stream idle');
      break;
    }
    if (!data) break;
    const text = event(
      { output: data.toString(), ...(settings.offsets !== false && { offset: position }) },
      settings.event,
    );
    if (sent === settings.cutAfter) {
      await write(text.slice(0, text.length / 2));
      out.destroy();
      return;
    }
    await write(text);
    position += data.length;
  }
  out.end();
}
