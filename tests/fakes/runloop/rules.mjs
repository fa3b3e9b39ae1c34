// rules.mjs -- misbehaviour on demand: which requests it is for, and what an answer then is.

const ERROR_BODIES = {
  message: { message: 'it is broken' },
  'odd-message': { message: { code: 17, detail: 'it is broken' } },
  json: { code: 17, detail: 'it is broken' },
  text: 'it is broken',
  html: '<html><body>502 Bad Gateway</body></html>',
  empty: '',
};

const escape = (text) => text.replace(/[.+?^${}()|[\]\\]/g, '\\$&');

function matcher(on) {
  if (typeof on === 'function') return on;
  if (on instanceof RegExp) return (call) => on.test(`${call.method} ${call.url}`);
  if (on === undefined || on === '*') return (call) => !call.name.startsWith('tunnel') && !call.name.startsWith('pty');
  if (!on.includes('/')) return (call) => call.name === on || call.name.startsWith(`${on}.`);
  const pattern = new RegExp(`^(\\w+ )?${on.split('*').map(escape).join('.*')}$`);
  return (call) => pattern.test(`${call.method} ${call.path}`);
}

export class Rules {
  #list = [];

  /**
   * A rule: {on, times, skip, box, ...what}. on is a call's name ("execute", "tunnel", "pty.attach"; see
   * api.mjs), "METHOD /path" with * for anything, a RegExp on "METHOD /path?query", a function of the
   * call, or absent for every API call. It acts times (1) times, after skip (0) requests; on those of
   * box only, if given. What it does, one or several:
   *
   *   delayMs          first of all
   *   effect(call)     something of the test's own; awaited
   *   never            no answer, ever
   *   status, headers, body   this answer instead; body is text, bytes or something for JSON, or as
   *   bodyKind         'message', 'odd-message', 'json', 'text', 'html', 'empty'
   *   cut              the connection is cut: 'before' anything happens; 'answer': it is done, but not
   *                    answered; 'body': it is done, but half the body is missing
   *   sse              settings of streamLog()
   *   cutAfterBytes    of a tunnel: so many bytes of the far end
   *   late             of a tunnel: a promise; what the far end says behind its answer to the upgrade waits for it
   *   mute             of a tunnel: the upgrade is answered, and pings are, but nothing else in either direction
   *
   * Returns the rule, with hits counted in it, and remove().
   */
  add(rule) {
    const entry = { times: 1, skip: 0, hits: 0, ...rule, matches: matcher(rule.on) };
    entry.remove = () => (this.#list = this.#list.filter((one) => one !== entry));
    this.#list.push(entry);
    return entry;
  }

  clear() {
    this.#list = [];
  }

  take(call) {
    for (const rule of this.#list) {
      if ((rule.box && rule.box.id !== call.box) || !rule.matches(call)) continue;
      if (rule.skip > 0) {
        rule.skip--;
        continue;
      }
      rule.hits++;
      if (rule.hits >= rule.times) rule.remove();
      return rule;
    }
    return {};
  }
}

/** [bytes, content type] of a body. */
export function encodeBody(body) {
  if (body === undefined || body === null) return [Buffer.alloc(0), null];
  if (Buffer.isBuffer(body) || body instanceof Uint8Array) return [Buffer.from(body), 'application/octet-stream'];
  if (typeof body === 'string') return [Buffer.from(body), body.startsWith('<') ? 'text/html' : 'text/plain'];
  return [Buffer.from(JSON.stringify(body)), 'application/json'];
}

/** What a rule answers: [status, headers, body], or null when it leaves that to the fake. */
export function ruleAnswer(rule) {
  if (rule.status === undefined && rule.body === undefined && rule.bodyKind === undefined) return null;
  const status = rule.status ?? 200;
  const body = rule.bodyKind ? ERROR_BODIES[rule.bodyKind] : (rule.body ?? { message: `status ${status} on demand` });
  return [status, rule.headers ?? {}, body];
}
