// dialogs.js -- the two dialogs: the one that asks for the key, the one that shows the text.
import { copyText } from './terminal.js';

const element = (id) => document.getElementById(id);

/** Calls accept(key) for each key that is entered; why is shown when an earlier one was refused. */
export class KeyDialog {
  #dialog = element('key-dialog');
  #input = element('key');
  #error = element('key-error');

  constructor(accept) {
    this.#dialog.addEventListener('cancel', (event) => event.preventDefault()); // nothing works without
    element('key-form').addEventListener('submit', (event) => {
      event.preventDefault();
      const key = this.#input.value.trim();
      if (!key) return;
      this.#input.value = '';
      this.#dialog.close();
      accept(key);
    });
  }

  show(why = '') {
    this.#error.textContent = why;
    this.#error.hidden = !why;
    if (!this.#dialog.open) this.#dialog.showModal();
    this.#input.focus();
  }
}

/** The terminal's text as text: to select on a phone, to search, to read aloud. */
export class TextDialog {
  #dialog = element('text-dialog');
  #text = element('text');

  constructor() {
    element('text-close').addEventListener('click', () => this.#dialog.close());
    element('text-copy').addEventListener('click', () => {
      this.#text.select();
      copyText(this.#text.value);
    });
  }

  show(text) {
    this.#text.value = text;
    this.#dialog.showModal();
    this.#text.scrollTop = this.#text.scrollHeight;
  }
}
