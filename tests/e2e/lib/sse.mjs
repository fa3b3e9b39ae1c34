// sse.mjs -- a viewer of GET /sessions/{id}/stream, to the byte: each event as it was sent, checked
// against openapi.yaml and against the rules that hold for every stream.
import assert from 'node:assert/strict';
import http from 'node:http';
import { holdAgainstContract, holdEvent } from './contract.mjs';
import { DEADLINE_MS, deferred, within } from './wait.mjs';

const EMPTY = Buffer.alloc(0);

/** {epoch, offset} of "EPOCH:OFFSET" */
export function parseId(id) {
  const [, epoch, offset] = id.match(/^([0-9a-f]{16}):(\d+)$/) ?? assert.fail(`not an id: ${id}`);
  return { epoch, offset: Number(offset) };
}

export class EventStream {
  /**
   * Opens a stream and resolves once its headers are there; status and problem tell when it is none.
   * options: format, since, lastEventId, ticket, headers, discard (count output bytes, keep none),
   * checkEvery (hold only each n-th output event against its schema).
   */
  static async open(client, id, options = {}) {
    const stream = new EventStream(client, id, options);
    await within(stream.#opened.promise, `answer to ${stream.path}`);
    return stream;
  }

  #opened = deferred();
  #rest = EMPTY; // bytes behind the last whole event
  #queue = [];
  #wake = null;
  #outputs = 0;

  constructor(client, id, options) {
    const { format, since, lastEventId, ticket, headers = {}, query: more = {} } = options;
    const query = new URLSearchParams({
      ...(format && { format }),
      ...(since && { since }),
      ...(ticket && { ticket }),
      ...more,
    });
    this.path = `/sessions/${id}/stream${`${query}` && `?${query}`}`;
    this.format = format ?? 'text';
    this.options = options;
    this.comments = []; // of the whole stream
    this.retries = [];
    this.position = null; // {epoch, offset} behind the last event that had an id
    this.bytesReceived = 0;
    this.outputBytes = 0;
    this.ended = deferred(); // resolves when the server has closed it
    this.isEnded = false;
    this.request = http.request(client.url + this.path, {
      headers: client.allHeaders({
        Accept: 'text/event-stream',
        ...(lastEventId !== undefined && { 'Last-Event-ID': lastEventId }),
        ...headers,
      }),
      agent: false,
    });
    this.request.on('error', (error) => this.#end(error));
    this.request.on('response', (response) => this.#respond(response));
    this.request.end();
  }

  #respond(response) {
    this.response = response;
    this.status = response.statusCode;
    this.headers = response.headers;
    const isStream = this.status === 200;
    const chunks = [];
    try {
      if (isStream) this.#hold(null);
    } catch (error) {
      this.#opened.reject(error);
      this.close();
      return;
    }
    response.on('data', (chunk) => {
      this.bytesReceived += chunk.length;
      if (!isStream) {
        chunks.push(chunk);
        return;
      }
      try {
        this.#take(chunk);
      } catch (error) {
        this.#end(error);
        this.close();
      }
    });
    response.on('error', (error) => this.#end(error.code === 'ECONNRESET' ? null : error));
    response.on('end', () => {
      if (!isStream) {
        try {
          const body = Buffer.concat(chunks);
          this.#hold(body);
          this.problem = body.length ? JSON.parse(body) : null;
          this.#opened.resolve();
        } catch (error) {
          this.#opened.reject(error);
        }
      }
      this.#end(null);
    });
    response.on('close', () => this.#end(null));
    if (isStream) this.#opened.resolve();
  }

  #hold(body) {
    holdAgainstContract({ method: 'GET', path: this.path, status: this.status, headers: this.headers, body });
  }

  #end(error) {
    if (this.isEnded) return;
    this.isEnded = true;
    this.error = error;
    if (error) {
      this.#opened.reject(error);
      this.#opened.promise.catch(() => {});
    }
    this.ended.resolve();
    this.#wake?.();
  }

  #take(chunk) {
    let data = this.#rest.length ? Buffer.concat([this.#rest, chunk]) : chunk;
    for (let end; (end = data.indexOf('\n\n')) >= 0; data = data.subarray(end + 2)) this.#block(data.subarray(0, end));
    this.#rest = data;
  }

  #block(block) {
    const event = { event: null, id: null };
    for (const line of block.toString('utf8').split('\n')) {
      if (line.startsWith(':')) this.comments.push(line);
      else if (line.startsWith('retry: ')) this.retries.push(Number(line.slice(7)));
      else if (line.startsWith('id: ')) event.id = line.slice(4);
      else if (line.startsWith('event: ')) event.event = line.slice(7);
      else if (line.startsWith('data: ')) {
        assert.equal(event.raw, undefined, 'data has one line');
        event.raw = line.slice(6);
      } else assert.fail(`line that belongs to no event: ${JSON.stringify(line.slice(0, 200))}`);
    }
    if (event.event === null) {
      assert.equal(event.raw, undefined, 'data without an event');
      assert.equal(event.id, null, 'id without an event');
      this.#wake?.();
      return;
    }
    this.#event(event);
    this.#queue.push(event);
    this.#wake?.();
  }

  // The rules for every stream.
  #event(event) {
    const name = event.event;
    event.data = JSON.parse(event.raw);
    const every = this.options.checkEvery ?? 1;
    if (name !== 'output' || this.#outputs++ % every === 0) holdEvent(name, event.data, this.format);
    if (this.position === null && !this.sawState) assert.equal(name, 'state', 'the first event is state');
    assert.ok(!this.sawExit, `nothing comes after exit, but ${name} did`);
    if (name === 'state') {
      assert.equal(event.id, null, 'state has no id');
      this.sawState ??= event;
      return;
    }
    assert.ok(event.id, `${name} has an id`);
    Object.assign(event, parseId(event.id));
    const { position } = this;
    if (name === 'output') {
      event.bytes = Buffer.from(event.data.base64 ?? event.data.data, this.format === 'base64' ? 'base64' : 'utf8');
      this.outputBytes += event.bytes.length;
      event.from = event.offset - event.bytes.length;
      // In text U+FFFD may stand for any byte, and a viewer may skip the rest of a character first.
      const exact = this.format === 'base64' || (!event.data.data.includes('\ufffd') && position?.exact);
      if (position && exact && !position.reset) {
        assert.equal(event.epoch, position.epoch, 'the epoch changes only with a reset');
        assert.equal(event.from, position.offset, `output goes on at ${position.offset}`);
      } else if (position?.reset && this.format === 'base64') {
        assert.equal(event.from, position.offset, 'output goes on where the reset said');
      } else if (position) assert.ok(event.offset > position.offset, 'offsets grow');
      assert.ok(
        event.bytes.length <= 3 * 8192 && (this.format !== 'base64' || event.bytes.length <= 8192),
        'an event has at most 8 KiB',
      );
      this.position = { epoch: event.epoch, offset: event.offset, exact: true };
      if (this.options.discard) {
        this.options.discard(event);
        delete event.bytes;
        event.data = event.raw = null;
      }
      return;
    }
    if (name === 'reset') {
      assert.equal(event.data.offset, event.offset, 'the id of a reset is its offset');
      this.position = { epoch: event.epoch, offset: event.offset, reset: true };
      return;
    }
    if (position && !position.reset) assert.equal(event.epoch, position.epoch, 'the epoch changes only with a reset');
    if (name === 'exit') {
      this.sawExit = true;
      if (position?.exact && this.format === 'base64')
        assert.equal(event.offset, position.offset + 1, 'exit stands at END+1');
    } else if (position?.exact && this.format === 'base64') {
      assert.equal(event.offset, position.offset, 'a resize stands between the bytes around it');
    }
    // In text a resize may stand inside a character that is held.
    this.position = { epoch: event.epoch, offset: event.offset, exact: this.format === 'base64' };
  }

  /** The next event; null when the stream has ended. */
  async next(what = 'next event', ms = DEADLINE_MS) {
    const end = Date.now() + ms; // comments wake us, too
    while (this.#queue.length === 0) {
      if (this.isEnded) {
        if (this.error) throw this.error;
        return null;
      }
      await this.#wait(what, end);
    }
    return this.#queue.shift();
  }

  async #wait(what, end) {
    const woken = deferred();
    this.#wake = woken.resolve;
    await within(woken.promise, `${what} on ${this.path} (at ${JSON.stringify(this.position)})`, end - Date.now());
    this.#wake = null;
  }

  /** Waits until test() is true, looked at whenever something came. */
  async when(test, what, ms = DEADLINE_MS) {
    const end = Date.now() + ms;
    while (!test()) {
      if (this.isEnded) {
        if (this.error) throw this.error;
        assert.fail(`${what}: the stream ended`);
      }
      await this.#wait(what, end);
    }
  }

  /** Events up to and with the first that test() likes; fails when the stream ends before. */
  async until(test, what = 'event', ms = DEADLINE_MS) {
    const events = [];
    for (;;) {
      const event = await this.next(what, ms);
      if (event === null) {
        const seen = events.map((e) => `${e.event} ${e.id ?? ''} ${(e.raw ?? '').slice(0, 60)}`);
        assert.fail(`${what}: the stream ended after ${seen.join('; ') || 'nothing'}`);
      }
      events.push(event);
      if (test(event)) return events;
    }
  }

  /** The first event of that name from now on, what came before is dropped. */
  async first(name, ms) {
    return (await this.until((e) => e.event === name, name, ms)).at(-1);
  }

  /** Output from now on until the offset is reached: {from, to, bytes, events}. */
  async to(offset, ms = DEADLINE_MS) {
    const behind = (e) => e.offset !== undefined && e.offset >= offset && e.event === 'output';
    return joined(await this.until(behind, `output to ${offset}`, ms));
  }

  /** All until the server ends the stream: {from, to, bytes, events}. */
  async rest(ms = DEADLINE_MS) {
    const events = [];
    for (let event; (event = await this.next('end of the stream', ms)) !== null;) events.push(event);
    return joined(events);
  }

  /** Stops reading from the socket; resume() goes on. */
  pause() {
    this.response.pause();
  }

  resume() {
    this.response.resume();
  }

  close() {
    this.request.destroy();
    this.#end(null);
  }
}

/** What the output events among events say. */
export function joined(events) {
  const outputs = events.filter((e) => e.event === 'output');
  return {
    events,
    from: outputs[0]?.from,
    to: outputs.at(-1)?.offset,
    bytes: Buffer.concat(outputs.map((e) => e.bytes ?? EMPTY)),
    text: outputs.map((e) => e.data?.data ?? '').join(''),
    names: events.map((e) => e.event),
  };
}
