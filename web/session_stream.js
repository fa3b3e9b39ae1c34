// session_stream.js -- the EventSource transport: one session's events, output as base64.
import { sessionPath } from './api.js';
import { parseId } from './output_cursor.js';

/**
 * Opens the stream. The browser reconnects by itself with Last-Event-ID; the ticket's first use has
 * set a cookie for that. closed() is called when it has given up (any answer but 200).
 *
 * @param {object} options
 * @param {string} options.id the session
 * @param {string} options.ticket
 * @param {string|null} options.since EPOCH:OFFSET to go on from
 * @param {object} on opened(), output(bytes, end, epoch), event(name, data, id), interrupted(), closed(code)
 * @returns {{close(): void}}
 */
export function openStream({ id, ticket, since }, on) {
  const query = new URLSearchParams({ format: 'base64', ticket });
  if (since) query.set('since', since);
  const source = new EventSource(`${sessionPath(id, 'stream')}?${query}`);

  source.onopen = () => on.opened();
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) on.closed(null);
    else on.interrupted();
  };
  source.addEventListener('output', (event) => {
    const { epoch, offset } = parseId(event.lastEventId);
    on.output(decodeBase64(JSON.parse(event.data).base64), offset, epoch);
  });
  // state carries no id: lastEventId would be that of an event before it.
  source.addEventListener('state', (event) => on.event('state', JSON.parse(event.data), null));
  for (const name of ['resize', 'reset', 'exit'])
    source.addEventListener(name, (event) => on.event(name, JSON.parse(event.data), parseId(event.lastEventId)));

  return { close: () => source.close() };
}

/** @returns {Uint8Array} */
function decodeBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}
