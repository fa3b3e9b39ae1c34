// api.js -- requests to the service, with the credential, and its problem+json as exceptions.

/**
 * What went wrong with a request. status 0: there was no answer (network, timeout).
 * slug: the last part of the problem's type, such as "session-ended".
 */
export class ApiError extends Error {
  constructor(status, slug, message, { retryAfterMs = 0, problem = {} } = {}) {
    super(message);
    this.name = 'ApiError';
    this.status = status;
    this.slug = slug;
    this.retryAfterMs = retryAfterMs;
    this.problem = problem;
  }

  /** Whether the same request may succeed a little later. */
  get transient() {
    return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500;
  }
}

const REQUEST_TIMEOUT_MS = 30_000;
const LIST_PAGES = 5;

/** @param {Response} response */
async function errorOf(response) {
  let problem = {};
  try {
    problem = await response.json();
  } catch {
    /* a proxy's own page */
  }
  const slug = String(problem.type ?? '').split('/').pop() || `http-${response.status}`;
  const message = problem.detail || problem.title || `The service answered ${response.status}.`;
  const seconds = Number(response.headers.get('Retry-After'));
  return new ApiError(response.status, slug, message, {
    retryAfterMs: seconds > 0 ? seconds * 1000 : 0,
    problem,
  });
}

export class Api {
  /** @param {{key?: string, ticket?: string}} credential a key, or a ticket for one session */
  constructor(credential) {
    this.credential = credential;
  }

  /** Resolves to the Response when it is a good one, else throws ApiError. */
  async request(method, path, { json, body, headers = {} } = {}) {
    const { key, ticket } = this.credential;
    const all = { ...headers };
    if (key) all.Authorization = `Bearer ${key}`;
    else if (ticket) path += `${path.includes('?') ? '&' : '?'}ticket=${encodeURIComponent(ticket)}`;
    if (json !== undefined) {
      all['Content-Type'] = 'application/json';
      body = JSON.stringify(json);
    }
    let response;
    try {
      response = await fetch(path, {
        method,
        headers: all,
        body,
        cache: 'no-store',
        credentials: 'same-origin',
        signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
      });
    } catch {
      throw new ApiError(0, 'network', 'The service does not answer.');
    }
    if (!response.ok) throw await errorOf(response);
    return response;
  }

  async #json(method, path, json) {
    return (await this.request(method, path, { json })).json();
  }

  /** One's own sessions; of very many, the first by id. */
  async listSessions() {
    const all = [];
    let after = '';
    for (let page = 0; page < LIST_PAGES && after !== null; page++) {
      const query = new URLSearchParams({ limit: '200', ...(after && { after }) });
      const { sessions, next } = await this.#json('GET', `/sessions?${query}`);
      all.push(...sessions);
      after = next;
    }
    return all;
  }

  getSession(id) {
    return this.#json('GET', sessionPath(id));
  }

  openSession(parameters) {
    return this.#json('POST', '/sessions', parameters);
  }

  async closeSession(id) {
    await this.request('DELETE', sessionPath(id));
  }

  async resize(id, cols, rows) {
    await this.request('POST', sessionPath(id, 'resize'), { json: { cols, rows } });
  }

  /** @param {{role: 'view'|'write', ttl_s?: number, reusable?: boolean}} parameters */
  ticket(id, parameters) {
    return this.#json('POST', sessionPath(id, 'tickets'), parameters);
  }

  /** Types bytes; the pair of client and sequence number makes a repeat harmless. */
  async input(id, client, seq, bytes) {
    await this.request('POST', sessionPath(id, 'input'), {
      body: bytes,
      headers: {
        'Content-Type': 'application/octet-stream',
        'Input-Client': client,
        'Input-Seq': String(seq),
      },
    });
  }
}

/** @returns {string} /sessions/ID[/WHAT] */
export function sessionPath(id, what = '') {
  return `/sessions/${encodeURIComponent(id)}${what && `/${what}`}`;
}
