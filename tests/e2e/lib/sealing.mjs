// sealing.mjs -- credentials as pocketenv's web and CLI seal them: libsodium in JavaScript, by the hex of a public key.
// The package's ES module asks for a file that is not in it, so it is loaded as CommonJS.
import { createRequire } from 'node:module';

const sodium = createRequire(import.meta.url)('libsodium-wrappers');
await sodium.ready;

const { URLSAFE_NO_PADDING } = sodium.base64_variants;

/** A pair as hex. */
export function makePair() {
  const { publicKey, privateKey } = sodium.crypto_box_keypair();
  return { publicKey: sodium.to_hex(publicKey), privateKey: sodium.to_hex(privateKey) };
}

export function seal(text, publicKey) {
  return sodium.to_base64(sodium.crypto_box_seal(text, sodium.from_hex(publicKey)), URLSAFE_NO_PADDING);
}

/** The text, or an exception when it is for another pair. */
export function open(sealed, { publicKey, privateKey }) {
  const box = sodium.from_base64(sealed, URLSAFE_NO_PADDING);
  return sodium.to_string(sodium.crypto_box_seal_open(box, sodium.from_hex(publicKey), sodium.from_hex(privateKey)));
}
