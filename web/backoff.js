// backoff.js -- how long to wait before the next try: growing, jittered, never less than asked for.

const FIRST_MS = 250;
const LONGEST_MS = 10_000;

/**
 * @param {number} failures how many tries in a row have failed, from 1
 * @param {number} atLeastMs what the service asked for (Retry-After)
 */
export function backoffMs(failures, atLeastMs = 0, random = Math.random) {
  const ceiling = Math.min(LONGEST_MS, FIRST_MS * 2 ** (failures - 1));
  return Math.max(ceiling * (0.5 + random() / 2), atLeastMs * (1 + random() / 5));
}

/** 16 random bytes as hex: an Input-Client, a session id. */
export function randomId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, '0')).join('');
}
