// key_row.js -- the keys that a phone's keyboard does not have. Ctrl and Alt hold for the next key.

const ESC = 0x1b;

const KEYS = [
  { label: 'Esc', text: '\x1b' },
  { label: 'Tab', text: '\t' },
  { label: 'Ctrl', hold: 'ctrl' },
  { label: 'Alt', hold: 'alt' },
  { label: '←', name: 'Left', cursor: 'D' },
  { label: '↓', name: 'Down', cursor: 'B' },
  { label: '↑', name: 'Up', cursor: 'A' },
  { label: '→', name: 'Right', cursor: 'C' },
  { label: '-', name: 'Minus', text: '-' },
  { label: '/', name: 'Slash', text: '/' },
  { label: '|', name: 'Pipe', text: '|' },
  { label: '~', name: 'Tilde', text: '~' },
  { label: 'Home', cursor: 'H' },
  { label: 'End', cursor: 'F' },
  { label: 'PgUp', name: 'Page up', text: '\x1b[5~' },
  { label: 'PgDn', name: 'Page down', text: '\x1b[6~' },
  { label: 'Paste', paste: true },
];

/** Fills row; screen() is the terminal shown now (terminal.js), or null. */
export class KeyRow {
  #held = { ctrl: null, alt: null }; // the pressed button, or null

  /**
   * @param {HTMLElement} row
   * @param {() => import('./terminal.js').TerminalScreen|null} screen
   */
  constructor(row, screen) {
    for (const key of KEYS) {
      if (key.paste && !navigator.clipboard?.readText) continue;
      const button = document.createElement('button');
      button.type = 'button';
      button.textContent = key.label;
      button.setAttribute('aria-label', key.name ?? key.label);
      if (key.hold) button.setAttribute('aria-pressed', 'false');
      // The terminal keeps the focus, and with it the phone its keyboard.
      button.addEventListener('pointerdown', (event) => event.preventDefault());
      button.addEventListener('click', () => this.#press(key, button, screen()));
      row.append(button);
    }
  }

  async #press(key, button, screen) {
    if (!screen) return;
    if (key.hold) {
      const pressed = this.#held[key.hold] === null;
      this.#held[key.hold] = pressed ? button : null;
      button.setAttribute('aria-pressed', String(pressed));
    } else if (key.cursor) {
      screen.typeCursorKey(key.cursor, this.#takeModifier());
    } else if (key.paste) {
      try {
        screen.paste(await navigator.clipboard.readText());
      } catch {
        /* not allowed: the phone's own paste is left */
      }
    } else {
      screen.type(key.text);
    }
  }

  // 5 is Ctrl, 3 Alt, 7 both, 1 none: xterm's numbers.
  #takeModifier() {
    const modifier = 1 + (this.#held.alt ? 2 : 0) + (this.#held.ctrl ? 4 : 0);
    this.#release();
    return modifier;
  }

  #release() {
    for (const which of ['ctrl', 'alt']) {
      this.#held[which]?.setAttribute('aria-pressed', 'false');
      this.#held[which] = null;
    }
  }

  /** What the held keys make of the next one typed. Longer input (a paste) is left alone. */
  transform(bytes) {
    const { ctrl, alt } = this.#held;
    if (bytes.length !== 1 || (!ctrl && !alt)) return bytes;
    this.#release();
    const code = ctrl ? controlCode(bytes[0]) : bytes[0];
    return Uint8Array.from(alt ? [ESC, code] : [code]);
  }
}

function controlCode(code) {
  if (code === 0x20) return 0;
  if (code === 0x3f) return 0x7f;
  const upper = code >= 0x61 && code <= 0x7a ? code - 0x20 : code;
  return upper >= 0x40 && upper <= 0x5f ? upper & 0x1f : code;
}
