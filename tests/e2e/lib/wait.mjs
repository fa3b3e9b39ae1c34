// wait.mjs -- waiting for something to happen, with a deadline. Tests never sleep: what cannot be
// waited for as an event is looked at again and again.
import { flavour } from './flavour.mjs';

const slow = flavour === 'release' ? 1 : 5;
export const DEADLINE_MS = 15_000 * slow;

/** The value of promise, or an error that says what did not happen. */
export async function within(promise, what, ms = DEADLINE_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    const error = new Error(`not within ${ms} ms: ${what}`);
    timer = setTimeout(() => reject(error), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Calls look() until its result is truthy, and returns that. */
export async function until(look, what, ms = DEADLINE_MS) {
  const end = Date.now() + ms;
  for (let pause = 2; ; pause = Math.min(pause * 2, 50)) {
    const result = await look();
    if (result) return result;
    if (Date.now() > end) throw new Error(`not within ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

/** {promise, resolve, reject} */
export function deferred() {
  const d = {};
  d.promise = new Promise((resolve, reject) => Object.assign(d, { resolve, reject }));
  return d;
}
