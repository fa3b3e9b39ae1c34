// session_socket.js -- the WebSocket transport: output, events, and input with acknowledgements, on
// one socket. A socket that ended is not used again: the caller opens the next one.
import { ApiError, sessionPath } from './api.js';
import { parseId } from './output_cursor.js';

/**
 * @param {object} options as openStream()'s
 * @param {object} on as openStream()'s; closed() is given the close code
 * @returns {{close(): void, send(client: string, seq: number, bytes: Uint8Array): Promise<void>}}
 */
export function openSocket({ id, ticket, since }, on) {
  const query = new URLSearchParams({ mode: 'binary', ticket });
  if (since) query.set('since', since);
  const url = new URL(`${sessionPath(id, 'ws')}?${query}`, location.href);
  url.protocol = url.protocol.replace('http', 'ws');
  const socket = new WebSocket(url);
  socket.binaryType = 'arraybuffer';
  const unacknowledged = new Map(); // sequence number -> {resolve, reject}
  let announced = null; // the Input-Client that the other side knows

  socket.onopen = () => on.opened();
  socket.onmessage = ({ data }) => {
    if (typeof data !== 'string') {
      on.output(new Uint8Array(data, 8), Number(new DataView(data).getBigUint64(0)), null);
      return;
    }
    const message = JSON.parse(data);
    const waiting = unacknowledged.get(message.seq);
    if (message.event === 'ack') {
      unacknowledged.delete(message.seq);
      waiting?.resolve();
    } else if (message.event === 'error' && waiting) {
      unacknowledged.delete(message.seq);
      waiting.reject(errorOf(message));
    } else if (message.event !== 'error') {
      on.event(message.event, message, parseId(message.id));
    }
  };
  socket.onclose = ({ code }) => {
    for (const { reject } of unacknowledged.values()) reject(new ApiError(0, 'network', 'The connection was lost.'));
    unacknowledged.clear();
    on.closed(code);
  };

  return {
    close() {
      socket.onclose = socket.onmessage = null;
      for (const { reject } of unacknowledged.values()) reject(new ApiError(0, 'network', 'The connection was closed.'));
      unacknowledged.clear();
      socket.close();
    },
    send(client, seq, bytes) {
      if (socket.readyState !== WebSocket.OPEN)
        return Promise.reject(new ApiError(0, 'network', 'There is no connection.'));
      if (announced !== client) socket.send(JSON.stringify({ type: 'client', id: client }));
      announced = client;
      const message = new Uint8Array(8 + bytes.length);
      new DataView(message.buffer).setBigUint64(0, BigInt(seq));
      message.set(bytes, 8);
      socket.send(message);
      return new Promise((resolve, reject) => unacknowledged.set(seq, { resolve, reject }));
    },
  };
}

function errorOf(message) {
  const slug = String(message.type ?? '').split('/').pop();
  return new ApiError(message.status ?? 503, slug, message.detail || message.title || 'The input was refused.', {
    problem: message,
  });
}
