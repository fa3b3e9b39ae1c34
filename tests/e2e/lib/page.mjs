// page.mjs -- the web terminal in Chromium, as a person sees it: typed with keys, read as text. A
// page fails its test when the console had an error, a script threw, or the CSP was violated.
import assert from 'node:assert/strict';
import { chromium } from 'playwright-core';
import { DEADLINE_MS, until } from './wait.mjs';

let browser = null;

/** Chromium, one for the test file. */
export async function launched() {
  browser ??= await chromium.launch({
    executablePath: '/usr/bin/chromium',
    args: [
      '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync',
    ],
  });
  return browser;
}

/** Ends the browser: for after(). */
export async function closeBrowser() {
  await browser?.close();
  browser = null;
}

const DESKTOP = { viewport: { width: 1100, height: 700 }, colorScheme: 'light' };

export class TerminalPage {
  /**
   * Opens the page of service in a browser profile of its own, which t's end removes.
   * options: fragment ("key=..."), context (playwright's), expected (console errors that the test
   * brings about), before (called with the page before it loads).
   */
  static async open(t, service, { fragment = '', context = {}, expected = [], before } = {}) {
    const profile = await (await launched()).newContext({ ...DESKTOP, ...context });
    t.cleanup(() => profile.close());
    const page = await profile.newPage();
    page.setDefaultTimeout(DEADLINE_MS);
    const self = new TerminalPage(page, service, expected);
    await page.addInitScript(() => {
      document.addEventListener('securitypolicyviolation', (event) =>
        console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`));
    });
    await before?.(page);
    await page.goto(`${service.url}/${fragment && `#${fragment}`}`);
    t.cleanup(() => self.check());
    return self;
  }

  constructor(page, service, expected) {
    Object.assign(this, { page, service, expected, errors: [] });
    page.on('pageerror', (error) => this.errors.push(`script: ${error.stack}`));
    page.on('console', (message) => {
      if (message.type() === 'error') this.errors.push(`console: ${message.text()} (${message.location().url})`);
    });
  }

  check() {
    const unexpected = this.errors.filter((text) => !this.expected.some((pattern) => pattern.test(text)));
    assert.deepEqual(unexpected, []);
  }

  /** New terminal, with a command for /bin/sh when one is given. Returns the session's id. */
  async openTerminal(command) {
    if (command) {
      await this.page.locator('.open-form summary').click();
      await this.page.getByLabel('Command').fill(command);
      await this.page.locator('.open-form summary').click();
    }
    await this.page.locator('#open').click();
    await this.page.waitForURL(/#session=/);
    return new URLSearchParams(new URL(this.page.url()).hash.slice(1)).get('session');
  }

  /** Waits for the word beside the dot, such as "Open". */
  async state(text) {
    await this.page.locator('#state-text').getByText(text).waitFor();
  }

  async type(text) {
    await this.page.locator('.xterm-helper-textarea').focus();
    await this.page.keyboard.type(text);
  }

  async press(key) {
    await this.page.locator('.xterm-helper-textarea').focus();
    await this.page.keyboard.press(key);
  }

  /** Pastes as Ctrl+V does. */
  async paste(text) {
    await this.page.evaluate((pasted) => {
      const clipboardData = new DataTransfer();
      clipboardData.setData('text/plain', pasted);
      document.querySelector('.xterm-helper-textarea').dispatchEvent(
        new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true }));
    }, text);
  }

  /** All that the terminal holds, scrollback too: what "Show as text" shows. */
  text() {
    return this.page.evaluate(() => {
      document.getElementById('show-text').click();
      const { value } = document.getElementById('text');
      document.getElementById('text-close').click();
      return value;
    });
  }

  async lines(pattern) {
    return (await this.text()).split('\n').map((line) => line.trimEnd()).filter((line) => pattern.test(line));
  }

  /** Waits until the terminal's text matches, and returns it. */
  async shows(pattern, ms) {
    let text;
    try {
      await until(async () => pattern.test((text = await this.text())), `${pattern} on the terminal`, ms);
    } catch (error) {
      error.message += `; it shows:\n${text.slice(-1500)}`;
      throw error;
    }
    return text;
  }
}
