// runloop_original.mjs -- how pocketenv comes to a terminal in a devbox of Runloop, with Runloop's own client: looks for
// pty-tunnel-server, uploads it where it is missing, starts one, reads its handshake, connects, says ready. Its web server
// in front is left out. For bench/runloop.mjs, which writes a line of JSON for each session, and reads one.
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { RunloopSDK, toFile } from '@runloop/api-client';
import WebSocket from 'ws';

const PORT = 26661;

/** Milliseconds until the first byte of the shell. */
async function open({ url, key, tunnel, box, agent, session }) {
  const from = performance.now();
  const sdk = new RunloopSDK({ bearerToken: key, baseURL: url });
  const devbox = sdk.devbox.fromId(box);
  if ((await devbox.cmd.exec('command -v pty-tunnel-server')).exitCode !== 0) {
    const name = `pty-server-${session}`;
    await devbox.file.upload({ path: name, file: await toFile(readFileSync(agent), 'pty-tunnel-server') });
    // The fake's devboxes have a bin of their own, in front of their PATH: not /usr/bin.
    const to = '"$HOME/../bin/pty-tunnel-server"';
    await devbox.cmd.exec(`mv "${name}" ${to} || sudo mv "${name}" ${to}; chmod a+x ${to} || sudo chmod a+x ${to}`);
  }
  let text = '', found;
  const handshake = new Promise((resolve) => { found = resolve; });
  await devbox.cmd.execAsync(
    `bash -c "TERM=xterm-256color pty-tunnel-server --config=$HOME/config --port=${PORT} --mode=client --cols=80 --rows=24 bash"`,
    {
      stdout: (data) => {
        text += data;
        if (text.includes('\n')) found(JSON.parse(text.slice(0, text.indexOf('\n'))));
      },
      stderr: () => {},
    },
  );
  const { tunnel: { tunnel_key: tunnelKey } } = await devbox.getInfo();
  const { port, processId, token } = await handshake;
  const query = new URLSearchParams({ processId, token });
  const base = tunnel.replace('{port}', port).replace('{tunnel_key}', tunnelKey);
  const ws = new WebSocket(`${base}/ws/client?${query}`);
  const output = new Promise((resolve) => {
    ws.on('message', (data) => data.length > 0 && resolve()); // some are empty
  });
  await once(ws, 'open');
  ws.send(Buffer.from([2])); // ready
  await output;
  const ms = performance.now() - from;
  ws.on('error', () => {});
  ws.close();
  return ms;
}

for await (const line of createInterface({ input: process.stdin })) {
  const ms = await open(JSON.parse(line)).catch((error) => ({ error: error.message }));
  console.log(JSON.stringify(typeof ms === 'number' ? { ms } : ms));
}
process.exit(0); // streams of what was started may still be read
