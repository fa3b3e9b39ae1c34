// jwt.mjs -- JSON Web Tokens, good and bad, by node:crypto alone.
import { createHmac, generateKeyPairSync, sign } from 'node:crypto';

const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

const signers = {
  HS256: (text, key) => createHmac('sha256', key).update(text).digest(),
  HS512: (text, key) => createHmac('sha512', key).update(text).digest(),
  RS256: (text, key) => sign('sha256', Buffer.from(text), key),
  ES256: (text, key) => sign('sha256', Buffer.from(text), { key, dsaEncoding: 'ieee-p1363' }),
  none: () => Buffer.alloc(0),
};

/** A token; exp is seconds from now, left out with null. */
export function jwt(alg, key, { exp = 300, header = {}, ...claims }) {
  const now = Math.floor(Date.now() / 1000);
  const payload = { iat: now, ...(exp === null ? {} : { exp: now + exp }), ...claims };
  const text = `${part({ alg, typ: 'JWT', ...header })}.${part(payload)}`;
  return `${text}.${signers[alg](text, key).toString('base64url')}`;
}

/** {privateKey, pem} for RS256 or ES256. */
export function keyPair(alg) {
  const { privateKey, publicKey } =
    alg === 'RS256'
      ? generateKeyPairSync('rsa', { modulusLength: 2048 })
      : generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return { privateKey, pem: publicKey.export({ type: 'spki', format: 'pem' }) };
}
