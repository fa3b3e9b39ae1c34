// session_link.js -- keeps one session's stream open: gets tickets, chooses the transport, goes on
// where the output stopped, backs off, and says what a repeat cannot mend.
import { ApiError } from './api.js';
import { backoffMs } from './backoff.js';
import { openSocket } from './session_socket.js';
import { openStream } from './session_stream.js';

const CLOSE_ENDED = 1000;
const REFUSALS = { 4400: 400, 4401: 401, 4403: 403, 4404: 404 }; // close codes of the WebSocket
// A ticket that was given with the page cannot be renewed: this many refusals in a row, and it is spent.
const TICKET_TRIES = 3;

export class SessionLink {
  #api;
  #id;
  #transport;
  #since;
  #on;
  #role;
  #connection = null;
  #attempt = 0; // what an older attempt still reports is ignored
  #failures = 0;
  #timer = null;
  #running = false;

  /**
   * @param {object} options
   * @param {import('./api.js').Api} options.api
   * @param {string} options.id
   * @param {'stream'|'ws'} options.transport
   * @param {'write'|'view'} options.role the ticket's; falls to view when write is refused
   * @param {() => string|null} options.since EPOCH:OFFSET to go on from
   * @param {object} options.on output(bytes, end, epoch), event(name, data, id), status('connecting' |
   *   'live' | 'lost'), role(role), refused(error): refused leaves the link stopped
   */
  constructor({ api, id, transport, role, since, on }) {
    this.#api = api;
    this.#id = id;
    this.#transport = transport;
    this.#role = role;
    this.#since = since;
    this.#on = on;
  }

  get transport() {
    return this.#transport;
  }

  start() {
    if (this.#running) return;
    this.#running = true;
    this.#failures = 0;
    this.#on.status('connecting');
    this.#connect();
  }

  stop() {
    this.#running = false;
    this.#disconnect();
  }

  /** The session has ended: what is open may run out, nothing is opened any more. */
  finish() {
    this.#running = false;
  }

  /** A new connection at once: the old one may be dead without knowing it. */
  restart() {
    if (!this.#running) return;
    this.stop();
    this.start();
  }

  /** A new connection after a pause: what this one says cannot be used. */
  retry() {
    this.#disconnect();
    this.#failed(new ApiError(0, 'closed', ''));
  }

  setTransport(transport) {
    this.#transport = transport;
    this.restart();
  }

  /** Sends input over the socket; only when transport is 'ws'. */
  sendInput(client, seq, bytes) {
    if (this.#connection?.send) return this.#connection.send(client, seq, bytes);
    return Promise.reject(new ApiError(0, 'network', 'There is no connection.'));
  }

  #disconnect() {
    this.#attempt++;
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#connection?.close();
    this.#connection = null;
  }

  async #connect() {
    const attempt = ++this.#attempt;
    const current = () => attempt === this.#attempt;
    let ticket;
    try {
      ticket = await this.#ticket();
    } catch (error) {
      if (current()) this.#failed(error);
      return;
    }
    if (!current()) return;
    const open = this.#transport === 'ws' ? openSocket : openStream;
    this.#connection = open({ id: this.#id, ticket, since: this.#since() }, {
      opened: () => {
        if (current()) this.#on.status('live');
      },
      interrupted: () => {
        if (current()) this.#on.status('lost');
      },
      output: (bytes, end, epoch) => {
        if (current()) this.#on.output(bytes, end, epoch);
      },
      event: (name, data, id) => {
        if (!current()) return;
        this.#failures = 0;
        this.#on.event(name, data, id);
      },
      closed: (code) => {
        if (current()) this.#closed(code);
      },
    });
  }

  async #ticket() {
    if (this.#api.credential.ticket) return this.#api.credential.ticket;
    try {
      return (await this.#api.ticket(this.#id, { role: this.#role })).ticket;
    } catch (error) {
      if (error.status !== 403 || this.#role === 'view') throw error;
      const { ticket } = await this.#api.ticket(this.#id, { role: 'view' });
      this.#role = 'view';
      this.#on.role('view');
      return ticket;
    }
  }

  async #closed(code) {
    this.#connection = null;
    const attempt = this.#attempt;
    if (code === CLOSE_ENDED || !this.#running) {
      this.stop();
      return;
    }
    let error = new ApiError(REFUSALS[code] ?? 0, 'closed', 'The connection was closed.');
    // An EventSource does not say why. With a key the next ticket will; a ticket can be asked with.
    if (code === null && this.#api.credential.ticket) {
      try {
        await this.#api.getSession(this.#id);
      } catch (reason) {
        error = reason;
      }
      if (attempt !== this.#attempt) return;
    }
    // The ticket may have run out on its way; whether the credential itself is good shows by the next.
    if (error.status === 401 && (!this.#api.credential.ticket || this.#failures < TICKET_TRIES))
      error = new ApiError(0, 'closed', error.message);
    this.#failed(error);
  }

  #failed(error) {
    if (!this.#running) return;
    if (!error.transient) {
      this.stop();
      this.#on.refused(error);
      return;
    }
    this.#failures++;
    this.#on.status('lost');
    this.#timer = setTimeout(() => this.#connect(), backoffMs(this.#failures, error.retryAfterMs));
  }
}
