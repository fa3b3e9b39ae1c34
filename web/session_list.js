// session_list.js -- the list of sessions in the sidebar, kept fresh while the page is seen.
import { describeAge, describeEnd, describeState } from './session_words.js';

const REFRESH_MS = 5_000;

export class SessionList {
  #api;
  #list;
  #note;
  #on;
  #timer = null;
  #items = new Map(); // id -> <li>
  #current = null;

  /**
   * @param {import('./api.js').Api} api
   * @param {{list: HTMLElement, note: HTMLElement}} elements
   * @param {object} on attach(id), remove(id, ended), refused(error)
   */
  constructor(api, { list, note }, on) {
    this.#api = api;
    this.#list = list;
    this.#note = note;
    this.#on = on;
    document.addEventListener('visibilitychange', () => {
      if (this.#timer !== null) this.refresh();
    });
  }

  /** Fetches the list now, and again from time to time. */
  async refresh() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.refresh(), REFRESH_MS);
    if (document.visibilityState !== 'visible') return;
    try {
      this.#show(await this.#api.listSessions());
      this.#say(this.#items.size ? '' : 'None yet.');
    } catch (error) {
      if (error.status === 401) {
        this.stop();
        this.#on.refused(error);
      } else {
        this.#say(error.status === 403 ? 'This key may not list sessions.' : error.message);
      }
    }
  }

  stop() {
    clearTimeout(this.#timer);
    this.#timer = null;
  }

  /** Somebody else is going to log in. */
  clear() {
    this.stop();
    this.#show([]);
  }

  /** Marks the session that is shown. */
  setCurrent(id) {
    this.#current = id;
    for (const [other, item] of this.#items) this.#mark(other, item);
  }

  #mark(id, item) {
    item.querySelector('.attach').setAttribute('aria-current', String(id === this.#current));
  }

  #say(text) {
    this.#note.textContent = text;
    this.#note.hidden = !text;
  }

  #show(sessions) {
    // Living ones first, then the newest first.
    sessions.sort((a, b) => Boolean(a.ended) - Boolean(b.ended) || (a.created_at < b.created_at ? 1 : -1));
    const ids = new Set(sessions.map((s) => s.id));
    for (const [id, item] of this.#items)
      if (!ids.has(id)) {
        item.remove();
        this.#items.delete(id);
      }
    sessions.forEach((session, place) => {
      let item = this.#items.get(session.id);
      if (!item) {
        item = this.#create(session.id);
        this.#items.set(session.id, item);
      }
      this.#fill(item, session);
      // Only what moved is moved: a focused button keeps its focus.
      if (this.#list.children[place] !== item) this.#list.insertBefore(item, this.#list.children[place] ?? null);
    });
  }

  #create(id) {
    const item = document.createElement('li');
    const attach = document.createElement('button');
    attach.type = 'button';
    attach.className = 'attach';
    attach.innerHTML = '<span class="name"><span class="dot" aria-hidden="true"></span><span></span></span><span class="facts"></span>';
    attach.querySelector('.name span:last-child').textContent = id;
    attach.addEventListener('click', () => this.#on.attach(id));
    const remove = document.createElement('button');
    remove.type = 'button';
    remove.className = 'remove';
    remove.textContent = '×';
    remove.addEventListener('click', () => this.#on.remove(id, item.dataset.ended === 'true'));
    item.append(attach, remove);
    return item;
  }

  #fill(item, { id, state, sandbox, provider, cols, rows, created_at: createdAt, ended }) {
    const { text, tone } = ended
      ? describeEnd({ reason: ended.reason, exitCode: ended.exit_code, signal: ended.signal })
      : describeState(state);
    const age = describeAge(Date.now() - Date.parse(createdAt));
    const where = typeof sandbox === 'string' ? sandbox : (sandbox?.external_id ?? provider);
    const line = (ended ? [text, age] : [text, age, where, `${cols}×${rows}`]).join(' · ');
    item.dataset.ended = String(Boolean(ended));
    item.dataset.tone = tone;
    const facts = item.querySelector('.facts');
    if (facts.textContent !== line) facts.textContent = line;
    const attach = item.querySelector('.attach');
    attach.title = ended?.text ?? id;
    const remove = item.querySelector('.remove');
    remove.title = ended ? 'Forget' : 'End';
    remove.setAttribute('aria-label', `${remove.title} session ${id}`);
    this.#mark(id, item);
  }
}
