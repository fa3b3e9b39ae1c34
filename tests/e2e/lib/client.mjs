// client.mjs -- HTTP as one caller with one credential. Every answer is held against openapi.yaml.
import assert from 'node:assert/strict';
import http from 'node:http';
import { holdAgainstContract } from './contract.mjs';
import { DEADLINE_MS } from './wait.mjs';

class Answer {
  constructor(method, path, { statusCode, headers, body }) {
    Object.assign(this, { method, path, status: statusCode, headers, body });
    this.text = body.toString('utf8');
    this.json = /[/+]json/.test(headers['content-type'] ?? '') && method !== 'HEAD' ? JSON.parse(this.text) : null;
  }

  /** Fails unless it has this status; returns itself. */
  is(status) {
    assert.equal(this.status, status, `${this.method} ${this.path} -> ${this.status} ${this.text.slice(0, 300)}`);
    return this;
  }

  /** Fails unless it is this problem; extra members are compared too. Returns itself. */
  isProblem(status, slug, members = {}) {
    this.is(status);
    assert.equal(this.json?.type, `/problems/${slug}`, `${this.method} ${this.path} -> ${this.text}`);
    for (const [name, value] of Object.entries(members))
      assert.deepEqual(this.json[name], value, `${this.method} ${this.path} -> ${this.text}`);
    return this;
  }
}

export class Client {
  /** url: of the service; credential: for "Authorization: Bearer", or none. */
  constructor(url, credential, headers = {}) {
    this.url = url;
    this.credential = credential;
    this.headers = headers;
    this.agent = new http.Agent({ keepAlive: true, maxSockets: 64 });
  }

  /** The same service, as somebody else. */
  as(credential) {
    return new Client(this.url, credential, this.headers);
  }

  close() {
    this.agent.destroy();
  }

  allHeaders(headers) {
    return {
      ...(this.credential ? { Authorization: `Bearer ${this.credential}` } : {}),
      ...this.headers,
      ...headers,
    };
  }

  /** options: body (bytes as they are), json, headers, signal. */
  async request(method, path, options = {}) {
    for (let repeated = false; ; repeated = true) {
      try {
        return await this.#once(method, path, options);
      } catch (error) {
        // The service closed an idle connection at the moment when it was used again.
        const wasClosed = error.code === 'ECONNRESET' && error.reused && ['GET', 'DELETE'].includes(method);
        if (repeated || !wasClosed) throw error;
      }
    }
  }

  #once(method, path, { body, json, headers = {}, timeout = DEADLINE_MS * 3, checked = true }) {
    const all = this.allHeaders(headers);
    if (json !== undefined) {
      body = JSON.stringify(json);
      all['Content-Type'] ??= 'application/json';
    }
    if (body !== undefined && all['Transfer-Encoding'] === undefined) all['Content-Length'] = Buffer.byteLength(body);
    return new Promise((resolve, reject) => {
      const { hostname: host, port } = new URL(this.url);
      const request = http.request({ host, port, path, method, headers: all, agent: this.agent, timeout });
      const fail = (error) => {
        const message = `${method} ${path}: ${error.message}`;
        reject(Object.assign(error, { message, reused: request.reusedSocket }));
      };
      request.on('timeout', () => request.destroy(new Error(`no answer in ${timeout} ms`)));
      request.on('error', fail);
      request.on('response', (response) => {
        const chunks = [];
        response.on('data', (chunk) => chunks.push(chunk));
        response.on('error', fail);
        response.on('end', () => {
          try {
            const { statusCode, headers: answered } = response;
            const whole = Buffer.concat(chunks);
            if (checked) holdAgainstContract({ method, path, status: statusCode, headers: answered, body: whole });
            resolve(new Answer(method, path, { statusCode, headers: answered, body: whole }));
          } catch (error) {
            reject(error);
          }
        });
      });
      request.end(body);
    });
  }

  get(path, options) {
    return this.request('GET', path, options);
  }

  post(path, options) {
    return this.request('POST', path, options);
  }

  delete(path, options) {
    return this.request('DELETE', path, options);
  }

  /** Makes a session and waits until it is open. */
  async createOpen(parameters) {
    const answer = await this.post('/sessions?wait=open', { json: parameters });
    answer.is(201);
    assert.ok(['open', 'ended'].includes(answer.json.state), answer.text);
    return answer.json;
  }

  type(id, body, headers) {
    return this.post(`/sessions/${id}/input`, { body, headers });
  }

  async ticket(id, parameters = { role: 'view' }) {
    const answer = await this.post(`/sessions/${id}/tickets`, { json: parameters });
    return answer.is(201).json.ticket;
  }

  /** The value of one line of /metrics: "ptycast_viewers{kind=\"sse\"}". */
  async metric(name) {
    const { text } = (await this.get('/metrics')).is(200);
    const line = text.split('\n').find((l) => l.startsWith(`${name} `));
    assert.ok(line, `no metric ${name} in\n${text}`);
    return Number(line.slice(name.length + 1));
  }
}
