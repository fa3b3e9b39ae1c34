// proxy.mjs -- a TCP proxy between the service and a far end, which can be cut, held and refused.
import net from 'node:net';

/**
 * Ends a connection by a reset. Not behind an end() that is under way: libuv then keeps a request for ever, and
 * Node 20 waits for that, busily, when it exits.
 */
export const reset = (socket) => (socket.writableEnded ? socket.destroy() : socket.resetAndDestroy());

export class Proxy {
  static async start(targetPort) {
    const proxy = new Proxy(targetPort);
    await new Promise((resolve) => proxy.server.listen(0, '127.0.0.1', resolve));
    proxy.port = proxy.server.address().port;
    return proxy;
  }

  constructor(targetPort) {
    this.targetPort = targetPort;
    this.pairs = new Set();
    this.accepted = 0;
    this.refusing = false; // connections are taken and reset at once
    this.holding = false; // nothing passes in either direction
    this.bytesDown = 0; // from the target
    this.cutAtBytesDown = Infinity; // then the connections are reset
    this.server = net.createServer((near) => this.#connect(near));
  }

  #connect(near) {
    this.accepted++;
    if (this.refusing) {
      reset(near);
      return;
    }
    const far = net.connect(this.targetPort, '127.0.0.1');
    const pair = { near, far };
    this.pairs.add(pair);
    const end = () => {
      near.destroy();
      far.destroy();
      this.pairs.delete(pair);
    };
    for (const [from, to] of [
      [near, far],
      [far, near],
    ]) {
      from.on('error', end);
      from.on('close', end);
      from.on('end', () => to.end());
      from.on('data', (chunk) => {
        if (from === far) this.bytesDown += chunk.length;
        if (this.bytesDown >= this.cutAtBytesDown) {
          this.cutAtBytesDown = Infinity;
          to.write(chunk.subarray(0, chunk.length >> 1)); // inside a frame, most likely
          this.cut();
          return;
        }
        if (!to.write(chunk)) {
          from.pause();
          to.once('drain', () => this.holding || from.resume());
        }
      });
      if (this.holding) from.pause();
    }
  }

  /** Resets all connections. */
  cut() {
    for (const { near, far } of this.pairs) {
      reset(near);
      reset(far);
    }
    this.pairs.clear();
  }

  hold() {
    this.holding = true;
    for (const { near, far } of this.pairs) {
      near.pause();
      far.pause();
    }
  }

  release() {
    this.holding = false;
    for (const { near, far } of this.pairs) {
      near.resume();
      far.resume();
    }
  }

  stop() {
    this.cut();
    this.server.close();
  }
}
