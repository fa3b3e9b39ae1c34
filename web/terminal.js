// terminal.js -- one xterm.js terminal: bytes in, keystrokes out, sizes, copy and paste, links.
import { FitAddon } from '@xterm/addon-fit';
import { WebLinksAddon } from '@xterm/addon-web-links';
import { Terminal } from '@xterm/xterm';
import { filterReplayedQueries, isFocusReport } from './replay_filter.js';
import { terminalColours } from './themes.js';

const SCROLLBACK_LINES = 10_000;
const SMALLEST_FONT_PX = 6;
const CELLS_MAX = 1000; // the service's limit
const CANCEL_AND_RESET = Uint8Array.of(0x18, 0x1b, 0x63); // CAN ends a cut sequence, then RIS

const encoder = new TextEncoder();

export class TerminalScreen {
  #on;
  #term;
  #fit = new FitAddon();
  #baseFontPx;
  #replaying = false;
  #unparsedBytes = 0;

  /**
   * @param {HTMLElement} parent is filled by the terminal
   * @param {object} on input(bytes), title(text), bell(), parsed(unparsedBytes), resized()
   */
  constructor(parent, on, { fontPx, screenReader = false }) {
    this.#on = on;
    this.#baseFontPx = fontPx;
    this.#term = new Terminal({
      ...terminalColours(),
      fontFamily: 'ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace',
      fontSize: fontPx,
      scrollback: SCROLLBACK_LINES,
      cursorBlink: false,
      screenReaderMode: screenReader,
      linkHandler: { activate: (_event, uri) => openLink(uri) },
    });
    const term = this.#term;
    term.loadAddon(this.#fit);
    term.loadAddon(new WebLinksAddon((_event, uri) => openLink(uri)));
    filterReplayedQueries(term, () => this.#replaying);
    term.onData((data) => {
      if (!(this.#replaying && isFocusReport(data))) on.input(encoder.encode(data));
    });
    term.onBinary((data) => on.input(Uint8Array.from(data, (c) => c.charCodeAt(0))));
    term.onTitleChange((title) => on.title(title));
    term.onBell(() => on.bell());
    term.attachCustomKeyEventHandler((event) => this.#key(event));
    term.open(parent);
    term.textarea.setAttribute('aria-label', 'Terminal input');
  }

  get cols() {
    return this.#term.cols;
  }

  get rows() {
    return this.#term.rows;
  }

  /** Output, to be parsed after all that was given before. */
  write(bytes) {
    if (bytes.length === 0) return;
    this.#unparsedBytes += bytes.length;
    this.#term.write(bytes, () => {
      this.#unparsedBytes -= bytes.length;
      this.#on.parsed(this.#unparsedBytes);
    });
  }

  get unparsedBytes() {
    return this.#unparsedBytes;
  }

  // An empty write has its callback called in order, between the bytes before and those after.
  #inOrder(fn) {
    this.#term.write('', fn);
  }

  /** From here on the output is a replay (or is not): its queries are not answered. */
  setReplaying(replaying) {
    this.#inOrder(() => {
      this.#replaying = replaying;
    });
  }

  /** The terminal has this size from here on. */
  resize(cols, rows) {
    this.#inOrder(() => {
      if (cols !== this.#term.cols || rows !== this.#term.rows) this.#term.resize(cols, rows);
      this.#on.resized();
    });
  }

  /** Forgets all that was shown, scrollback too. */
  reset() {
    this.#term.write(CANCEL_AND_RESET);
  }

  /** The cells that would fill the window at the usual font; null while it cannot be told. */
  proposedSize() {
    const size = this.#fit.proposeDimensions();
    if (!size || !(size.cols > 0) || !(size.rows > 0)) return null;
    const { fontSize } = this.#term.options;
    const scale = fontSize / this.#baseFontPx;
    const cells = (n) => Math.max(1, Math.min(CELLS_MAX, Math.floor(n * scale)));
    return { cols: cells(size.cols), rows: cells(size.rows) };
  }

  /** Makes the font as small as it must be to show the whole width and height. */
  shrinkToFit() {
    const size = this.proposedSize();
    if (!size) return;
    const scale = Math.min(1, size.cols / this.#term.cols, size.rows / this.#term.rows);
    this.#setFont(Math.max(SMALLEST_FONT_PX, Math.floor(this.#baseFontPx * scale * 2) / 2));
  }

  usualFont() {
    this.#setFont(this.#baseFontPx);
  }

  #setFont(px) {
    if (this.#term.options.fontSize !== px) this.#term.options.fontSize = px;
  }

  setReadOnly(readOnly) {
    this.#term.options.disableStdin = readOnly;
  }

  /** There will be no more output: nothing blinks where nothing can be typed. */
  setEnded() {
    this.setReadOnly(true);
    this.#term.options.cursorInactiveStyle = 'none';
    this.#term.blur();
  }

  setScreenReader(on) {
    this.#term.options.screenReaderMode = on;
  }

  setColours() {
    Object.assign(this.#term.options, terminalColours());
  }

  /** As if typed. */
  type(text) {
    this.#term.input(text);
  }

  /**
   * @param {'A'|'B'|'C'|'D'|'H'|'F'} final up, down, right, left, home, end
   * @param {number} modifier xterm's: 1 none, 3 Alt, 5 Ctrl, 7 both
   */
  typeCursorKey(final, modifier = 1) {
    const plain = this.#term.modes.applicationCursorKeysMode ? '\x1bO' : '\x1b[';
    this.#term.input(modifier === 1 ? plain + final : `\x1b[1;${modifier}${final}`);
  }

  /** With the brackets that the program asked for. */
  paste(text) {
    this.#term.paste(text);
  }

  get selection() {
    return this.#term.getSelection();
  }

  focus() {
    this.#term.focus();
  }

  /** The whole buffer as text: wrapped rows are one line. */
  text() {
    const buffer = this.#term.buffer.active;
    const lines = [];
    for (let y = 0; y < buffer.length; y++) {
      const row = buffer.getLine(y);
      const next = buffer.getLine(y + 1);
      const text = row.translateToString(!next?.isWrapped);
      if (row.isWrapped && lines.length) lines[lines.length - 1] += text;
      else lines.push(text);
    }
    return lines.join('\n').trimEnd();
  }

  dispose() {
    this.#term.dispose();
  }

  #key(event) {
    if (event.type !== 'keydown' || !event.ctrlKey || !event.shiftKey || event.altKey || event.metaKey) return true;
    if (event.code === 'KeyC') {
      event.preventDefault(); // it opens the browser's developer tools
      copyText(this.selection);
      return false;
    }
    return event.code !== 'KeyV'; // the browser's own paste
  }
}

/** Also where there is no clipboard API (a page that came over plain HTTP): xterm.js fills the copy event. */
export async function copyText(text) {
  if (!text) return;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    document.execCommand('copy');
  }
}

function openLink(uri) {
  if (/^https?:\/\//i.test(uri)) window.open(uri, '_blank', 'noopener,noreferrer');
}
