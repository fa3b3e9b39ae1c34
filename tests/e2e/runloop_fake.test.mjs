// runloop_fake.test.mjs -- the fake Runloop (tests/fakes/runloop) is held against Runloop's own client,
// and by hand where that does not reach: tunnels, terminals, misbehaviour.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readFileSync, statSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { fileURLToPath } from 'node:url';
import {
  APIConnectionError, APIConnectionTimeoutError, APIError, AuthenticationError, BadRequestError, ConflictError,
  InternalServerError, NotFoundError, PermissionDeniedError, RateLimitError, Runloop as Api, RunloopSDK, toFile,
  UnprocessableEntityError,
} from '@runloop/api-client';
import WebSocket, { WebSocketServer } from 'ws';
import { CA_FILE, Runloop } from '../fakes/runloop/runloop.mjs';
import { Child, isSanitized, test as everywhere } from './lib/service.mjs';
import { deferred, until, within } from './lib/wait.mjs';

// Nothing of it is C but the tool behind its terminals.
const test = (name, fn) => everywhere(name, { skip: isSanitized && 'once is enough' }, fn);

const ca = readFileSync(CA_FILE);
const UUID = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

async function start(t, options = {}, boxOptions = {}) {
  const fake = await Runloop.start(options);
  t.cleanup(() => fake.close());
  const box = fake.createBox(boxOptions);
  const client = (more = {}) =>
    new RunloopSDK({ bearerToken: fake.key, baseURL: fake.url, http2: false, ...more });
  const sdk = client();
  return { fake, box, client, sdk, api: sdk.api, devbox: sdk.devbox.fromId(box.id) };
}

const names = (fake) => fake.calls.map((call) => call.name);
const callsOf = (fake, name) => fake.calls.filter((call) => call.name === name);

// --- devboxes ---

test('retrieve, list and create', async (t) => {
  const { fake, box, sdk, devbox } = await start(t, {}, { name: 'one', arch: 'arm64' });
  const view = await devbox.getInfo();
  assert.equal(view.id, box.id);
  assert.equal(view.status, 'running');
  assert.equal(view.name, 'one');
  assert.equal(view.launch_parameters.architecture, 'arm64');
  assert.equal(view.tunnel, null);
  assert.equal(view.end_time_ms, null);
  assert.deepEqual(view.state_transitions.map(({ status }) => status), ['running']);

  const created = await sdk.devbox.create({
    name: 'two',
    environment_variables: { COLOUR: 'green' },
    tunnel: { auth_mode: 'authenticated' },
  });
  assert.equal((await created.cmd.exec('echo $COLOUR $HOME')).exitCode, 0);
  assert.equal(await (await created.cmd.exec('echo $COLOUR')).stdout(), 'green\n');
  const tunnel = await created.getTunnel();
  assert.equal(tunnel.auth_mode, 'authenticated');
  assert.ok(tunnel.auth_token);
  const { state_transitions: transitions } = await created.getInfo();
  assert.deepEqual(transitions.map(({ status }) => status), ['provisioning', 'running']);
  assert.deepEqual((await sdk.devbox.list()).map(({ id }) => id), [box.id, created.id]);
  assert.equal(fake.count('create'), 1);
  assert.match(fake.calls[1].requestId, UUID);
  assert.equal(fake.calls[0].requestId, null, 'a GET has none');
});

test('unknown ids and calls, wrong and expired keys', async (t) => {
  const { fake, client, sdk, api, devbox } = await start(t);
  await assert.rejects(sdk.devbox.fromId('dbx_none').getInfo(), (error) => {
    assert.ok(error instanceof NotFoundError);
    assert.equal(error.message, '404 devbox not found');
    return true;
  });
  await assert.rejects(api.devboxes.executions.retrieve(devbox.id, 'none'), NotFoundError);
  await assert.rejects(api.get('/v1/nothing'), NotFoundError);
  await assert.rejects(api.get(`/v1/devboxes/${devbox.id}%2Fx`), NotFoundError);
  await assert.rejects(client({ bearerToken: 'wrong' }).devbox.fromId(devbox.id).getInfo(), AuthenticationError);
  fake.expireKey();
  await assert.rejects(devbox.getInfo(), AuthenticationError);
  fake.renewKey();
  await assert.rejects(devbox.getInfo(), AuthenticationError);
  assert.equal((await client().devbox.fromId(devbox.id).getInfo()).status, 'running');
});

test('waits for a status in rounds of 408', async (t) => {
  const { fake, box, devbox } = await start(t, { holdMs: 20 }, { status: 'provisioning' });
  fake.misbehave({ on: 'wait', skip: 2, effect: () => box.setStatus('running') });
  assert.equal((await devbox.awaitRunning()).status, 'running');
  const waits = callsOf(fake, 'wait');
  assert.deepEqual(waits.map((call) => call.status), [408, 408, 200]);
  assert.deepEqual(waits[0].body, { statuses: ['running', 'failure', 'shutdown'] });
  assert.equal(new Set(waits.map((call) => call.requestId)).size, 3, 'each round is a call of its own');
});

test('a wait ends while it is held, and with its client', async (t) => {
  const { box, devbox } = await start(t, {}, { status: 'provisioning' });
  const running = devbox.awaitRunning();
  await until(() => box.listenerCount('status') > 0, 'the wait is held');
  box.setStatus('running');
  assert.equal((await within(running, 'end of the wait')).status, 'running');

  const aborter = new AbortController();
  const waiting = assert.rejects(devbox.awaitSuspended({ signal: aborter.signal }));
  await until(() => box.listenerCount('status') > 0, 'the wait is held');
  aborter.abort();
  await waiting;
  await until(() => box.listenerCount('status') === 0, 'the wait is given up');
});

test('statuses in odd orders', async (t) => {
  const { box, api, devbox } = await start(t, { holdMs: 20 });
  box.statuses = ['queued', 'resuming', 'some_new_status'];
  const seen = [];
  for (let i = 0; i < 4; i++) seen.push((await devbox.getInfo()).status);
  assert.deepEqual(seen, ['queued', 'resuming', 'some_new_status', 'running']);

  // One look each at wait_for_status too: those not asked for are a 408.
  box.statuses = ['queued', 'resuming', 'running'];
  assert.equal((await devbox.awaitRunning()).status, 'running');
  assert.equal(box.statuses.length, 0);

  // With this the client's own list of passing statuses shows: it has only two.
  box.waitAnswersAll = true;
  box.statuses = ['provisioning', 'initializing', 'queued'];
  await assert.rejects(devbox.awaitRunning(), /queued/);
  box.statuses = ['some_new_status'];
  const direct = await api.post(`/v1/devboxes/${box.id}/wait_for_status`, { body: { statuses: ['running'] } });
  assert.equal(direct.status, 'some_new_status');
});

test('suspend ends all processes and keeps the disk, resume starts nothing', async (t) => {
  const { box, devbox, sdk } = await start(t);
  await devbox.file.write({ file_path: 'note', contents: 'kept' });
  const execution = await devbox.cmd.execAsync('setsid sleep 1000 & sleep 1000');
  await until(() => box.processes().length >= 3, 'three processes');
  assert.equal((await devbox.suspend()).status, 'suspending');
  assert.equal((await devbox.awaitSuspended()).status, 'suspended');
  assert.deepEqual(box.processes(), []);
  await assert.rejects(devbox.cmd.exec('true'), BadRequestError);
  assert.equal((await devbox.resumeAsync()).status, 'resuming');
  assert.equal((await devbox.awaitRunning()).status, 'running');
  assert.equal(await devbox.file.read({ file_path: 'note' }), 'kept');
  assert.equal((await execution.getState()).exit_status, 137);

  await devbox.suspend();
  assert.equal((await devbox.resume()).status, 'running');
  const ended = await devbox.shutdown();
  assert.equal(ended.status, 'shutdown');
  assert.equal(ended.shutdown_reason, 'api_shutdown');
  assert.ok(ended.end_time_ms > 0);
  await assert.rejects(devbox.resumeAsync(), BadRequestError);

  const other = sdk.devbox.fromId((await sdk.devbox.create()).id);
  await box.fake.boxes.get(other.id).fail();
  await assert.rejects(other.awaitRunning(), /failure/);
});

test('shutdown is refused while a snapshot runs, unless forced; keep_alive has no body', async (t) => {
  const { box, api, devbox } = await start(t);
  assert.equal((await devbox.keepAlive()) || null, null);
  assert.equal(box.keepAlives, 1);
  box.snapshots = 1;
  await assert.rejects(api.devboxes.shutdown(box.id, { maxRetries: 0 }), ConflictError);
  assert.equal((await api.devboxes.shutdown(box.id, { force: 'true' })).status, 'shutdown');
});

test('evictions are told to those who watch', async (t) => {
  const { fake, box, api } = await start(t);
  const stream = await api.devboxes.watchEvictions({ headers: { Accept: 'text/event-stream' } });
  await until(() => fake.evictionWatchers.size > 0, 'somebody watches');
  fake.evict(box, 1790000000000);
  for await (const event of stream) {
    assert.deepEqual(event, { devbox_id: box.id, eviction_deadline_ms: 1790000000000 });
    break;
  }
  const plain = await fetch(`${fake.url}/v1/devboxes/evictions/watch`, {
    headers: { Authorization: `Bearer ${fake.key}`, Accept: 'application/json' },
  });
  assert.equal(await plain.text(), '');
});

// --- commands ---

test('exec: output, exit status, directory and environment', async (t) => {
  const { fake, box, devbox } = await start(t);
  const result = await devbox.cmd.exec('echo out; echo err >&2; exit 7');
  assert.equal(result.exitCode, 7);
  assert.equal(result.failed, true);
  assert.equal(await result.stdout(), 'out\n');
  assert.equal(await result.stderr(), 'err\n');
  assert.equal((await devbox.cmd.exec('kill -9 $$')).exitCode, 137);
  const [pwd, home] = (await (await devbox.cmd.exec('pwd; echo $HOME')).stdout()).split('\n');
  assert.deepEqual([pwd, home], [box.home, box.home]);
  const environment = await (await devbox.cmd.exec('env')).stdout();
  const variables = environment.trim().split('\n').map((line) => line.split('=')[0]).sort();
  assert.deepEqual(variables, ['FAKE_DEVBOX', 'HOME', 'LANG', 'PATH', 'PWD', 'USER']);
  assert.match(callsOf(fake, 'execute')[0].body.command_id, /^[0-9a-f]{8}-[0-9a-f]{4}-7/);
});

test('exec: more than last_n lines are in the stream alone', async (t) => {
  const { fake, devbox } = await start(t);
  const result = await devbox.cmd.exec('seq 1 500; seq 1 5 >&2', { last_n: '10' });
  assert.equal(result.result.stdout_truncated, true);
  assert.equal(result.result.stderr_truncated, false);
  assert.equal(result.result.stdout, '491\n492\n493\n494\n495\n496\n497\n498\n499\n500\n');
  assert.equal(fake.count('stdout'), 0);
  assert.equal(await result.stdout(3), '498\n499\n500');
  const all = Array.from({ length: 500 }, (_, i) => `${i + 1}\n`).join('');
  assert.equal(await result.stdout(), all);
  assert.equal(fake.count('stdout'), 1);
  assert.equal((await devbox.cmd.exec('seq 1 150')).result.stdout.split('\n')[0], '51', '100 by default');
});

test('exec: longer than the server waits', async (t) => {
  const { fake, box, devbox } = await start(t, { holdMs: 30 });
  const done = devbox.cmd.exec('until [ -f go ]; do sleep 0.01; done; echo gone', { optimistic_timeout: 0.02 });
  await until(() => fake.count('execution_wait') >= 3, 'three rounds of waiting');
  box.writeFile('go', '');
  assert.equal(await (await done).stdout(), 'gone\n');
  const waits = callsOf(fake, 'execution_wait');
  assert.ok(waits.slice(0, -1).every((call) => call.status === 408 && call.retryCount === 0));
  assert.equal(waits.at(-1).status, 200);
});

test('execute with the same command_id is one execution, also when its answer is lost', async (t) => {
  const { fake, api, box, devbox } = await start(t);
  fake.misbehave({ on: 'execute', cut: 'answer' });
  const result = await devbox.cmd.exec('echo once >>times; cat times');
  assert.equal(await result.stdout(), 'once\n');
  const calls = callsOf(fake, 'execute');
  assert.equal(calls.length, 2);
  assert.equal(calls[0].requestId, calls[1].requestId);
  assert.deepEqual(calls.map((call) => call.retryCount), [0, 1]);
  assert.equal(box.executions.size, 1);

  await assert.rejects(api.devboxes.execute(box.id, { command: 'true', command_id: 'x' }), BadRequestError);
  await assert.rejects(api.devboxes.execute(box.id, { command: 'true', optimistic_timeout: 26 }), BadRequestError);
  await assert.rejects(api.devboxes.executeAsync(box.id, {}), BadRequestError);
  const sync = await api.devboxes.executeSync(box.id, { command: 'seq 1 200; exit 4' });
  assert.equal(sync.exit_status, 4);
  assert.equal(sync.stdout.split('\n').length, 201);
});

test('execAsync: callbacks get all of a long output, while it comes', async (t) => {
  const { box, devbox } = await start(t);
  const first = deferred();
  let [stdout, stderr] = ['', ''];
  const execution = await devbox.cmd.execAsync(
    'echo begin; until [ -f go ]; do sleep 0.01; done; seq 1 200000; echo warn >&2; exit 3',
    {
      stdout: (chunk) => {
        stdout += chunk;
        first.resolve();
      },
      stderr: (chunk) => (stderr += chunk),
    },
  );
  await within(first.promise, 'the first output');
  assert.equal(stdout, 'begin\n');
  const state = await execution.getState();
  assert.equal(state.status, 'running');
  assert.equal(state.exit_status, null);
  assert.equal(state.stdout, null);
  box.writeFile('go', '');
  const result = await execution.result();
  assert.equal(result.exitCode, 3);
  assert.equal(stderr, 'warn\n');
  assert.equal(stdout.length, 'begin\n'.length + 1288895);
  assert.ok(stdout.endsWith('\n199999\n200000\n'));
  assert.equal(result.result.stdout_truncated, true);
});

test('kill: the process, or its group', async (t) => {
  const { box, api, devbox } = await start(t);
  const alone = await devbox.cmd.execAsync('sleep 1000 >/dev/null 2>&1 & echo $! >pid; wait');
  await until(() => existsSync(`${box.home}/pid`) && box.processes().length === 2, 'two processes');
  await alone.kill();
  assert.equal((await alone.result()).exitCode, 137);
  await until(() => box.processes().length === 1, 'the child is left');
  const group = await devbox.cmd.execAsync('sleep 1000 >/dev/null 2>&1 & sleep 1000');
  await until(() => box.processes().length === 4, 'four processes');
  const view = await api.devboxes.executions.kill(box.id, group.executionId, { kill_process_group: true });
  assert.equal(view.status, 'completed');
  await until(() => box.processes().length === 1, 'the group is gone');
  assert.equal((await api.devboxes.executions.kill(box.id, group.executionId)).exit_status, 137);
});

test('stdin: text, EOF and INTERRUPT, only where attached', async (t) => {
  const { box, api, devbox } = await start(t);
  const { executions } = api.devboxes;
  let out = '';
  const cat = await devbox.cmd.execAsync('cat', { attach_stdin: true, stdout: (chunk) => (out += chunk) });
  const sent = await executions.sendStdIn(box.id, cat.executionId, { text: 'häé\n' });
  assert.deepEqual(sent, { devbox_id: box.id, execution_id: cat.executionId, success: true });
  await until(() => out === 'häé\n', 'the echo');
  // A signal alone would be taken for options of the request, by the client.
  await executions.sendStdIn(box.id, cat.executionId, { signal: 'EOF', text: null });
  assert.equal((await cat.result()).exitCode, 0);
  await assert.rejects(executions.sendStdIn(box.id, cat.executionId, { text: 'x' }), BadRequestError);

  const ready = deferred();
  const trap = await devbox.cmd.execAsync('trap "exit 9" INT; echo ready; while :; do sleep 0.01; done', {
    attach_stdin: true,
    stdout: ready.resolve,
  });
  await within(ready.promise, 'the trap');
  await executions.sendStdIn(box.id, trap.executionId, { signal: 'INTERRUPT', text: null });
  assert.equal((await trap.result()).exitCode, 9);

  const closed = await devbox.cmd.execAsync('cat; echo end');
  assert.equal(await (await closed.result()).stdout(), 'end\n');
  const without = await devbox.cmd.execAsync('sleep 1000');
  await assert.rejects(executions.sendStdIn(box.id, without.executionId, { text: 'x' }), BadRequestError);

  box.stdinKills = true;
  const killed = await devbox.cmd.execAsync('cat', { attach_stdin: true });
  await executions.sendStdIn(box.id, killed.executionId, { text: 'x' });
  assert.equal((await killed.result()).exitCode, 137);
});

test('a named shell keeps directory and variables, and does one thing at a time', async (t) => {
  const { box, devbox } = await start(t);
  const shell = devbox.shell('main');
  await shell.exec('mkdir -p deep/er && cd deep/er && export WHAT="a b"');
  assert.equal(await (await shell.exec('echo "$WHAT"; pwd')).stdout(), `a b\n${box.home}/deep/er\n`);
  const long = await shell.execAsync('until [ -f go ]; do sleep 0.01; done; exit 5');
  const next = await shell.execAsync('echo $?');
  assert.equal((await next.getState()).status, 'queued');
  box.writeFile('deep/er/go', '');
  assert.equal((await long.result()).exitCode, 5);
  assert.equal((await next.result()).exitCode, 0);
  assert.equal((await devbox.cmd.exec('[ -z "$WHAT" ]')).exitCode, 0, 'others are not touched');
});

test('a command that leaves a daemon behind is completed; with holdsOpen only when that ends', async (t) => {
  const { box, devbox } = await start(t);
  assert.equal((await devbox.cmd.exec('setsid sleep 1000 & exit 2')).exitCode, 2);
  box.holdsOpen = true;
  const held = await devbox.cmd.execAsync('setsid sleep 1000 & exit 2');
  await until(() => box.processes().filter(({ cmdline }) => cmdline === 'sleep 1000').length === 2, 'two daemons');
  assert.equal((await held.getState()).status, 'running');
  await box.killProcesses();
  assert.equal((await held.result()).exitCode, 2);
});

// --- output streams ---

const collect = async (stream) => {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
};
const textOf = (events) => events.map((event) => event.output).join('');

async function finished(devbox, command) {
  const execution = await devbox.cmd.execAsync(command);
  await execution.result();
  return execution.executionId;
}

test('stream: a 408 in it makes the client come again, and the last chunk too', async (t) => {
  const { fake, box, api, devbox } = await start(t);
  const id = await finished(devbox, 'printf abcdefghij');
  box.sse = { chunkBytes: 3 };
  fake.misbehave({ on: 'stdout', sse: { errorAfter: 2 } });
  const events = await collect(await api.devboxes.executions.streamStdoutUpdates(box.id, id));
  assert.deepEqual(events.map((event) => [event.offset, event.output]), [
    [0, 'abc'], [3, 'def'], [3, 'def'], [6, 'ghi'], [9, 'j'],
  ]);
  assert.deepEqual(callsOf(fake, 'stdout').map((call) => call.url.split('?')[1]), ['offset=0', 'offset=3']);

  // The other reading of the documentation, the code as text, and a chunk that has grown meanwhile.
  fake.misbehave({ on: 'stdout', sse: { errorAfter: 2, errorCode: '408' } });
  fake.misbehave({ on: 'stdout', sse: { resume: 'after' } });
  assert.equal(textOf(await collect(await api.devboxes.executions.streamStdoutUpdates(box.id, id))), 'abcdefghij');
  fake.misbehave({ on: 'stdout', sse: { errorAfter: 2 } });
  fake.misbehave({ on: 'stdout', sse: { chunkBytes: Infinity, merge: true } });
  const grown = await collect(await api.devboxes.executions.streamStdoutUpdates(box.id, id));
  assert.deepEqual(grown.map((event) => event.output), ['abc', 'def', 'defghij']);
});

test('stream: without offsets everything comes again', async (t) => {
  const { fake, box, api, devbox } = await start(t);
  const id = await finished(devbox, 'printf abcdef');
  box.sse = { chunkBytes: 3, offsets: false };
  fake.misbehave({ on: 'stdout', sse: { errorAfter: 1 } });
  const events = await collect(await api.devboxes.executions.streamStdoutUpdates(box.id, id));
  assert.deepEqual(events, [{ output: 'abc' }, { output: 'abc' }, { output: 'def' }]);
});

test('stream: cuts within lines, characters and on the wire', async (t) => {
  const { fake, box, api, devbox } = await start(t);
  const id = await finished(devbox, `printf '{"port":1}é€😀'`);
  const { executions } = api.devboxes;
  const ways = [{ wireBytes: 1 }, { eol: '\r\n', wireBytes: 3 }, { eol: '\r' }, { comments: true, event: 'chunk' }];
  for (const sse of ways) {
    fake.misbehave({ on: 'stdout', sse });
    const whole = textOf(await collect(await executions.streamStdoutUpdates(box.id, id)));
    assert.equal(whole, '{"port":1}é€😀', JSON.stringify(sse));
  }
  fake.misbehave({ on: 'stdout', sse: { chunkBytes: 11 } });
  const cut = await collect(await executions.streamStdoutUpdates(box.id, id));
  assert.equal(cut[0].output, '{"port":1}\ufffd');
  assert.equal(cut[1].offset, 11);
  assert.ok(cut[1].output.startsWith('\ufffd€😀'));
  const from = await collect(await executions.streamStdoutUpdates(box.id, id, { offset: '10' }));
  assert.deepEqual(from, [{ output: 'é€😀', offset: 10 }]);
});

test('stream: error events, a cut connection, an early end, idleness', async (t) => {
  const { fake, box, api, devbox } = await start(t);
  const { executions } = api.devboxes;
  const id = await finished(devbox, 'printf abcdef');
  box.sse = { chunkBytes: 2 };
  fake.misbehave({ on: 'stdout', sse: { errorAfter: 1, errorCode: 500, errorMessage: 'oops' } });
  await assert.rejects(executions.streamStdoutUpdates(box.id, id).then(collect), /^Error: 500 oops/);
  for (const sse of [{ cutAfter: 1 }, { cutAfter: 1, cutMiddle: true }]) {
    fake.misbehave({ on: 'stdout', sse });
    await assert.rejects(executions.streamStdoutUpdates(box.id, id).then(collect), /premature|aborted|terminated/i);
  }
  fake.misbehave({ on: 'stdout', sse: { endAfter: 2 } });
  assert.equal(textOf(await collect(await executions.streamStdoutUpdates(box.id, id))), 'abcd');

  const slow = await devbox.cmd.execAsync('printf abc; until [ -f go ]; do sleep 0.01; done');
  box.sse = { idleMs: 20 };
  const streamed = executions.streamStdoutUpdates(box.id, slow.executionId).then(collect);
  fake.counts.clear();
  await until(() => fake.count('stdout') >= 3, 'three times idle');
  box.writeFile('go', '');
  assert.equal(textOf(await streamed).replaceAll('abc', ''), '');

  const plain = await fetch(`${fake.url}/v1/devboxes/${box.id}/executions/${id}/stream_stdout_updates`, {
    headers: { Authorization: `Bearer ${fake.key}` },
  });
  assert.equal(await plain.text(), '', 'nothing without Accept: text/event-stream');
});

// --- files ---

test('upload and download: bytes, mode, paths', async (t) => {
  const { fake, box, devbox } = await start(t);
  const bytes = randomBytes(300_001);
  await devbox.file.upload({ path: 'bin/tool', file: await toFile(bytes, 'agent') });
  assert.deepEqual(readFileSync(`${box.home}/bin/tool`), bytes);
  assert.equal(statSync(`${box.home}/bin/tool`).mode & 0o777, 0o644);
  const [upload] = box.uploads;
  assert.equal(upload.filename, 'agent');
  assert.equal(upload.type, 'application/octet-stream');
  assert.equal(upload.sha256, createHash('sha256').update(bytes).digest('hex'));
  assert.deepEqual(callsOf(fake, 'upload')[0].body, { bytes: Number(fake.calls[0].headers['content-length']) });

  const response = await devbox.file.download({ path: 'bin/tool' });
  assert.deepEqual(Buffer.from(await response.arrayBuffer()), bytes);
  await devbox.file.upload({ path: 'bin/tool', file: await toFile(Buffer.from('#!/bin/sh\necho run\n'), 'x') });
  assert.equal((await devbox.cmd.exec('./bin/tool')).exitCode, 126);
  assert.equal((await devbox.cmd.exec('chmod +x bin/tool; ./bin/tool')).exitCode, 0);

  await devbox.file.upload({ path: '/opt/x', file: await toFile(Buffer.from('x'), 'x') });
  assert.equal(readFileSync(`${box.root}/opt/x`, 'latin1'), 'x');
  await devbox.file.upload({ path: `${box.home}/y`, file: await toFile(Buffer.from('y'), 'y') });
  assert.equal(await devbox.file.read({ file_path: 'y' }), 'y');
  const outside = { path: '../../z', file: await toFile(Buffer.from('z'), 'z') };
  await assert.rejects(devbox.file.upload(outside), BadRequestError);
  await assert.rejects(devbox.file.download({ path: 'absent' }), NotFoundError);
});

test('upload: its parts are checked', async (t) => {
  const { fake, box } = await start(t);
  const part = (name, value, rest = '') =>
    `--B\r\nContent-Disposition: form-data; name="${name}"${rest}\r\n\r\n${value}\r\n`;
  const file = part('file', 'bytes', '; filename="f"\r\nContent-Type: application/octet-stream');
  const post = async (body, type = 'multipart/form-data; boundary=B') => {
    const response = await fetch(`${fake.url}/v1/devboxes/${box.id}/upload_file`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${fake.key}`, 'Content-Type': type },
      body,
    });
    return [response.status, await response.json()];
  };
  assert.equal((await post(`${part('path', 'ok')}${file}--B--\r\n`))[0], 200);
  const wrong = [
    `${file}${part('path', 'p')}--B--\r\n`,
    `${part('path', 'p')}--B--\r\n`,
    `${part('path', 'p')}${part('file', 'bytes')}--B--\r\n`,
    `${part('path', 'p')}${part('file', 'bytes', '; filename="f"')}--B--\r\n`,
    `${part('path', 'p')}${file}`,
    `${part('path', '')}${file}--B--\r\n`,
    'x',
  ];
  for (const body of wrong) assert.equal((await post(body))[0], 400, body);
  assert.equal((await post(`${part('path', 'ok')}${file}--B--\r\n`, 'application/json'))[0], 400);
  assert.deepEqual(box.uploads.map(({ path, size }) => [path, size]), [['ok', 5]]);
});

test('files as text', async (t) => {
  const { devbox } = await start(t);
  const result = await devbox.file.write({ file_path: 'a/b', contents: 'zwölf €\n' });
  assert.equal(result.exit_status, 0);
  assert.equal(await devbox.file.read({ file_path: 'a/b' }), 'zwölf €\n');
  assert.equal(await (await devbox.cmd.exec('cat a/b')).stdout(), 'zwölf €\n');
  await assert.rejects(devbox.file.read({ file_path: 'a/c' }), NotFoundError);
});

// --- errors and retries ---

test('errors: a class for each status, a message from each kind of body', async (t) => {
  const { fake, client, box } = await start(t);
  const devbox = client({ maxRetries: 0 }).devbox.fromId(box.id);
  const classes = {
    400: BadRequestError, 401: AuthenticationError, 403: PermissionDeniedError, 404: NotFoundError,
    408: APIError, 409: ConflictError, 418: APIError, 422: UnprocessableEntityError, 429: RateLimitError,
    500: InternalServerError, 503: InternalServerError,
  };
  for (const [status, Class] of Object.entries(classes)) {
    fake.misbehave({ on: 'retrieve', status: Number(status) });
    await assert.rejects(devbox.getInfo(), (error) => {
      assert.equal(error.constructor, Class);
      assert.equal(error.status, Number(status));
      return true;
    });
  }
  const messages = {
    message: '400 it is broken',
    'odd-message': '400 {"code":17,"detail":"it is broken"}',
    json: '400 {"code":17,"detail":"it is broken"}',
    text: '400 it is broken',
    html: '400 <html><body>502 Bad Gateway</body></html>',
    empty: '400 status code (no body)',
  };
  for (const [bodyKind, message] of Object.entries(messages)) {
    fake.misbehave({ on: 'retrieve', status: 400, bodyKind });
    await assert.rejects(devbox.getInfo(), { message });
  }
});

test('retries: when and how often the server says', async (t) => {
  const { fake, devbox } = await start(t);
  const gaps = (list) => list.slice(1).map((call, i) => call.t - list[i].t);
  fake.misbehave({ on: 'keep_alive', status: 429, headers: { 'retry-after-ms': '40' } });
  fake.misbehave({ on: 'keep_alive', status: 409, headers: { 'Retry-After': '0.08' } });
  fake.misbehave({
    on: 'keep_alive',
    status: 503,
    headers: { 'Retry-After': new Date(Date.now() + 1000).toUTCString() },
    bodyKind: 'text',
  });
  fake.misbehave({ on: 'keep_alive', status: 408, headers: { 'retry-after-ms': '1' } });
  fake.misbehave({ on: 'keep_alive', status: 400, headers: { 'x-should-retry': 'true', 'retry-after-ms': '1' } });
  await devbox.keepAlive();
  const calls = callsOf(fake, 'keep_alive');
  assert.deepEqual(calls.map((call) => call.status), [429, 409, 503, 408, 400, 200]);
  assert.deepEqual(calls.map((call) => call.retryCount), [0, 1, 2, 3, 4, 5]);
  assert.equal(new Set(calls.map((call) => call.requestId)).size, 1);
  const [first, second] = gaps(calls);
  assert.ok(first >= 38 && second >= 78, `${first} ${second}`);

  fake.reset();
  const rule = fake.misbehave({ on: 'retrieve', times: Infinity, status: 503, headers: { 'retry-after-ms': '1' } });
  await assert.rejects(devbox.getInfo(), InternalServerError);
  assert.equal(rule.hits, 6);
  rule.remove();
  fake.misbehave({ on: 'retrieve', status: 503, headers: { 'x-should-retry': 'false' } });
  await assert.rejects(devbox.getInfo(), InternalServerError);
  fake.misbehave({ on: 'GET /v1/devboxes/*', skip: 1, times: 2, status: 503, headers: { 'retry-after-ms': '1' } });
  assert.equal((await devbox.getInfo()).status, 'running');
  fake.reset();
  assert.equal((await devbox.getInfo()).status, 'running');
  assert.equal(fake.count(), 1);
});

test('no answer, a slow one, cut connections', async (t) => {
  const { fake, client, box } = await start(t);
  const devbox = client({ maxRetries: 0, timeout: 100 }).devbox.fromId(box.id);
  fake.misbehave({ on: 'retrieve', never: true });
  await assert.rejects(devbox.getInfo(), APIConnectionTimeoutError);
  fake.misbehave({ on: /^GET .*devboxes/, delayMs: 400 });
  await assert.rejects(devbox.getInfo(), APIConnectionTimeoutError);
  fake.misbehave({ cut: 'before' });
  await assert.rejects(devbox.getInfo(), APIConnectionError);
  // Not by Runloop's client: over HTTP/1.1 it waits for the rest for ever.
  fake.misbehave({ on: (call) => call.box === box.id, cut: 'body' });
  const half = await fetch(`${fake.url}/v1/devboxes/${box.id}`, { headers: { Authorization: `Bearer ${fake.key}` } });
  await assert.rejects(half.text(), /terminated/);
  fake.misbehave({ on: 'keep_alive', cut: 'answer' });
  await assert.rejects(devbox.keepAlive(), APIConnectionError);
  assert.equal(box.keepAlives, 1, 'but it was done');
  fake.latencyMs = 30;
  const started = Date.now();
  await devbox.keepAlive();
  assert.ok(Date.now() - started >= 29);
});

test('HTTP/2 over TLS, as the client does it by default', async (t) => {
  const { fake, box } = await start(t);
  const script = `
    import { RunloopSDK } from '@runloop/api-client';
    const sdk = new RunloopSDK({ bearerToken: ${JSON.stringify(fake.key)}, baseURL: ${JSON.stringify(fake.tlsUrl)} });
    let streamed = '';
    const devbox = sdk.devbox.fromId(${JSON.stringify(box.id)});
    const result = await devbox.cmd.exec('seq 1 1000; exit 3', { stdout: (chunk) => (streamed += chunk) });
    console.log(JSON.stringify({ code: result.exitCode, length: streamed.length }));
    process.exit();`;
  const child = new Child(process.execPath, ['--input-type=module', '-e', script], {
    dir: fileURLToPath(new URL('../..', import.meta.url)),
    env: { NODE_EXTRA_CA_CERTS: CA_FILE },
  });
  const line = await child.line((text) => text.startsWith('{') && JSON.parse(text), 'its result');
  assert.deepEqual(line, { code: 3, length: 3893 });
  assert.ok(names(fake).includes('stdout'));
});

// --- sandboxes ---

test('a sandbox without bash and sudo, with sudo, of another architecture', async (t) => {
  const { fake, sdk } = await start(t);
  const run = async (box, command) => {
    const result = await sdk.devbox.fromId(box.id).cmd.exec(command);
    return [result.exitCode, (await result.stdout()).trim()];
  };
  const plain = fake.createBox();
  assert.equal((await run(plain, 'command -v sudo'))[0], 127);
  assert.equal((await run(plain, 'command -v bash'))[0], 0);
  assert.deepEqual(await run(plain, 'uname -m'), [0, process.arch === 'arm64' ? 'aarch64' : 'x86_64']);
  const bare = fake.createBox({ noBash: true, without: ['sha256sum'] });
  assert.equal((await run(bare, 'command -v bash'))[0], 127);
  assert.equal((await run(bare, 'command -v sha256sum'))[0], 127);
  assert.equal((await run(bare, 'command -v cat'))[0], 0);
  const rich = fake.createBox({ sudo: true, arch: 'arm64', shell: '/bin/bash' });
  assert.deepEqual(await run(rich, 'sudo -n echo yes'), [0, 'yes']);
  assert.deepEqual(await run(rich, 'uname -m; [[ -n $BASH_VERSION ]]'), [0, 'aarch64']);
});

test('every process of a sandbox is found and ended, wherever it went', async (t) => {
  const { fake, box, devbox } = await start(t);
  const other = fake.createBox();
  other.execute({ command: 'exec sleep 1000' });
  await devbox.cmd.execAsync(
    'setsid sh -c "sleep 1001 & sleep 1002" & env -i sh -c "sleep 1003; :"',
  );
  const sleeping = (number) => box.processes().some(({ cmdline }) => cmdline === `sleep ${number}`);
  await until(() => [1001, 1002, 1003].every(sleeping), 'the daemons');
  await box.killProcesses();
  assert.deepEqual(box.processes(), []);
  assert.equal(other.processes().length, 1);
  await other.close();
  assert.equal(existsSync(other.dir), false);
});

// --- tunnels ---

/** What listens in the box: an HTTP and WebSocket server that says what it was asked. */
async function application(t) {
  const server = http.createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const { method, url, headers } = request;
    response.setHeader('Content-Type', 'application/json');
    response.end(JSON.stringify({ method, url, headers, body: Buffer.concat(chunks).toString() }));
  });
  const sockets = new WebSocketServer({ server });
  sockets.on('connection', (socket, request) => {
    socket.send(request.url);
    socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.cleanup(() => {
    for (const socket of sockets.clients) socket.terminate();
    server.close();
    server.closeAllConnections();
  });
  return server.address().port;
}

/** A request by hand: {status, headers, json, text}. */
function ask(url, { method = 'GET', headers = {}, body } = {}) {
  return new Promise((resolve, reject) => {
    const { request } = url.startsWith('https') ? https : http;
    const outgoing = request(url, { method, headers, ca, agent: false }, async (response) => {
      const chunks = [];
      for await (const chunk of response) chunks.push(chunk);
      const text = Buffer.concat(chunks).toString();
      const json = response.headers['content-type'] === 'application/json' ? JSON.parse(text) : null;
      resolve({ status: response.statusCode, headers: response.headers, text, json });
    });
    outgoing.on('error', reject);
    outgoing.end(body);
  });
}

/** A WebSocket whose messages are kept; open resolves with the status of the upgrade. */
function connect(t, url, { headers = {}, protocols = [] } = {}) {
  const socket = new WebSocket(url, protocols, { ca, headers, perMessageDeflate: false });
  const far = { socket, text: '', messages: [], binary: true };
  socket.on('message', (data, isBinary) => {
    far.binary &&= isBinary;
    far.messages.push(data);
    far.text += data;
  });
  socket.on('error', () => {});
  const open = new Promise((resolve) => {
    socket.on('open', () => resolve(101));
    socket.on('unexpected-response', (request, response) => {
      resolve(response.statusCode);
      request.destroy();
    });
  });
  far.open = within(open, `upgrade of ${url}`);
  far.closed = new Promise((resolve) => socket.on('close', resolve));
  far.says = (text) => until(() => far.text.includes(text), `${JSON.stringify(text)} in ${JSON.stringify(far.text)}`);
  t.cleanup(() => socket.terminate());
  return far;
}

test('tunnels: none, open, authenticated, removed', async (t) => {
  const { fake, box, devbox } = await start(t);
  assert.equal(await devbox.getTunnel(), null);
  await assert.rejects(devbox.getTunnelUrl(8080), /No tunnel/);
  const open = await devbox.net.enableTunnel();
  assert.deepEqual(
    { ...open, tunnel_key: '', create_time_ms: 0 },
    {
      tunnel_key: '', auth_mode: 'open', auth_token: null, create_time_ms: 0,
      http_keep_alive: true, wake_on_http: false,
    },
  );
  assert.deepEqual(await devbox.getTunnel(), open);
  assert.equal(await devbox.getTunnelUrl(8080), `https://8080-${open.tunnel_key}.tunnel.127.0.0.1`);

  fake.misbehave({ on: 'enable_tunnel', delayMs: 60 });
  const started = Date.now();
  const wanted = { auth_mode: 'authenticated', wake_on_http: true, http_keep_alive: false };
  const second = await devbox.net.enableTunnel(wanted);
  assert.ok(Date.now() - started >= 59);
  assert.notEqual(second.tunnel_key, open.tunnel_key);
  assert.ok(second.auth_token);
  assert.deepEqual([second.wake_on_http, second.http_keep_alive], [true, false]);
  fake.secondTunnel = 'same';
  assert.deepEqual(await devbox.net.enableTunnel(), second);
  await devbox.net.removeTunnel();
  assert.equal(await devbox.getTunnel(), null);
  assert.equal((await ask(fake.tunnelUrl(second, 80, 'http'))).status, 404);
  await assert.rejects(devbox.net.enableTunnel({ auth_mode: 'secret' }), BadRequestError);
  assert.equal(box.tunnel, null);
});

test('a tunnel carries requests, by path or by host, with TLS or not', async (t) => {
  const { fake, box } = await start(t, {}, { tunnel: 'open' });
  const port = await application(t);
  const secure = await ask(`${fake.tunnelUrl(box.tunnel, port, 'https')}/a/b?c=d`, { headers: { 'X-Mine': 'kept' } });
  assert.equal(secure.status, 200);
  assert.equal(secure.json.url, '/a/b?c=d');
  assert.equal(secure.json.headers['x-mine'], 'kept');
  const body = 'x'.repeat(200_000);
  const posted = await ask(`${fake.tunnelUrl(box.tunnel, port, 'http')}/p`, { method: 'POST', body });
  assert.deepEqual([posted.json.method, posted.json.body], ['POST', body]);
  assert.equal((await ask(fake.tunnelUrl(box.tunnel, port, 'http'))).json.url, '/');

  const host = `${port}-${box.tunnel.tunnel_key}.tunnel.example.org:443`;
  const byHost = await ask(`http://127.0.0.1:${fake.plainPort}/health`, { headers: { Host: host } });
  assert.equal(byHost.json.url, '/health');

  const calls = callsOf(fake, 'tunnel');
  assert.ok(calls.every((call) => call.port === port));
  assert.deepEqual(calls.map((call) => call.path), ['/a/b', '/p', '/', '/health']);
  assert.equal((await ask(fake.tunnelUrl('none', port, 'http'))).status, 404);
  assert.equal((await ask(`http://127.0.0.1:${fake.plainPort}/x`)).status, 404);
  assert.equal((await ask(fake.tunnelUrl(box.tunnel, 1, 'http'))).status, 502);
});

test('a tunnel carries WebSockets, and loses them', async (t) => {
  const { fake, box } = await start(t, {}, { tunnel: 'open' });
  const port = await application(t);
  const far = connect(t, `${fake.tunnelUrl(box.tunnel, port)}/ws/client?x=1`);
  assert.equal(await far.open, 101);
  await far.says('/ws/client?x=1');
  far.socket.send(Buffer.alloc(3_000_000, 'ab'));
  await until(() => far.messages.length === 2, 'a large message');
  assert.equal(far.messages[1].length, 3_000_000);

  box.stallTunnels();
  far.socket.send('held back');
  const other = connect(t, `${fake.tunnelUrl(box.tunnel, port, 'ws')}/other`);
  await other.says('/other');
  assert.equal(far.messages.length, 2);
  box.stallTunnels(false);
  await far.says('held back');

  box.cutTunnels();
  assert.equal(await within(far.closed, 'the cut'), 1006);
  await other.closed;
  assert.equal(box.sockets.size, 0);

  fake.misbehave({ on: 'tunnel', cutAfterBytes: 1000 });
  const short = connect(t, `${fake.tunnelUrl(box.tunnel, port)}/short`);
  await short.says('/short');
  short.socket.send('y'.repeat(2000));
  assert.equal(await within(short.closed, 'the cut'), 1006);

  const suspended = connect(t, `${fake.tunnelUrl(box.tunnel, port)}/last`);
  await suspended.says('/last');
  await box.suspend();
  assert.equal(await within(suspended.closed, 'the suspension'), 1006);
  assert.equal((await ask(fake.tunnelUrl(box.tunnel, port, 'http'))).status, 503);
});

test('an authenticated tunnel wants its token, in its header alone', async (t) => {
  const { fake, box } = await start(t, {}, { tunnel: 'authenticated' });
  const port = await application(t);
  const url = fake.tunnelUrl(box.tunnel, port, 'https');
  const token = box.tunnel.auth_token;
  for (const headers of [
    {}, { Authorization: `Bearer ${token}` }, { 'X-Runloop-Tunnel-Authorization': token },
    { 'X-Runloop-Tunnel-Authorization': 'Bearer wrong' },
  ])
    assert.equal((await ask(url, { headers })).status, 401);
  const headers = { 'X-Runloop-Tunnel-Authorization': `Bearer ${token}` };
  const answer = await ask(url, { headers });
  assert.equal(answer.status, 200);
  assert.equal(answer.json.headers['x-runloop-tunnel-authorization'], undefined);
  assert.equal(await connect(t, fake.tunnelUrl(box.tunnel, port)).open, 401);
  assert.equal(await connect(t, fake.tunnelUrl(box.tunnel, port), { headers }).open, 101);
});

test('a tunnel on its bad days; wake_on_http', async (t) => {
  const { fake, box } = await start(t, {}, { tunnel: 'open' });
  const port = await application(t);
  const url = fake.tunnelUrl(box.tunnel, port, 'http');
  fake.misbehave({ on: 'tunnel', status: 502, bodyKind: 'html' });
  fake.misbehave({ on: 'tunnel', status: 503, times: 2 });
  fake.misbehave({ on: 'tunnel', cut: 'before' });
  fake.misbehave({ on: 'tunnel', delayMs: 50 });
  const statuses = [];
  for (let i = 0; i < 5; i++) statuses.push(await ask(url).then(({ status }) => status, (error) => error.code));
  assert.deepEqual(statuses, [502, 503, 503, 'ECONNRESET', 200]);
  fake.misbehave({ on: 'tunnel', status: 404 });
  assert.equal(await connect(t, url.replace('http', 'ws')).open, 404);

  await box.suspend();
  assert.equal((await ask(url)).status, 503);
  box.tunnel.wake_on_http = true;
  assert.equal((await ask(url)).status, 200);
  assert.equal(box.status, 'running');
});

test('with isolatePorts a tunnel ends in its own box', async (t) => {
  const { fake, box, devbox } = await start(t, { isolatePorts: true }, { tunnel: 'open' });
  const other = fake.createBox({ tunnel: 'open' });
  const foreign = await application(t);
  assert.equal((await ask(fake.tunnelUrl(box.tunnel, foreign, 'http'))).status, 502);
  box.ports.add(foreign);
  assert.equal((await ask(fake.tunnelUrl(box.tunnel, foreign, 'http'))).status, 200);
  const script =
    "const s = require('http').createServer((q, r) => r.end('mine'));" +
    "s.listen(0, '127.0.0.1', () => console.log(s.address().port))";
  const port = deferred();
  const server = await devbox.cmd.execAsync(`exec ${process.execPath} -e "${script}"`, {
    stdout: (text) => port.resolve(Number(text)),
  });
  const own = await within(port.promise, 'a server in the box');
  assert.equal((await ask(fake.tunnelUrl(box.tunnel, own, 'http'))).text, 'mine');
  assert.equal((await ask(fake.tunnelUrl(other.tunnel, own, 'http'))).status, 502);
  await server.kill();
  await server.result(); // and its streams
});

test('the API key at a tunnel host is a failure', async (t) => {
  const fake = await Runloop.start();
  const box = fake.createBox({ tunnel: 'open' });
  const port = await application(t);
  const url = fake.tunnelUrl(box.tunnel, port, 'http');
  assert.equal((await ask(url, { headers: { Authorization: `Bearer ${fake.key}` } })).status, 400);
  assert.equal((await ask(`${url}/?k=${fake.key}`)).status, 400);
  assert.equal(fake.leaks.length, 2);
  await ask(url, { method: 'POST', body: 'x'.repeat(100_000) + fake.key + 'x'.repeat(100_000) });
  assert.equal(fake.leaks.length, 3);
  assert.ok((await ask(url)).status === 200 && fake.leaks.length === 3);
  await assert.rejects(fake.close(), /API key was sent/);
});

// --- terminals ---

async function startPty(t, options, boxOptions) {
  const setup = await start(t, options, boxOptions);
  const { fake, api, box } = setup;
  const tunnel = await api.devboxes.createPtyTunnel(box.id);
  assert.deepEqual(Object.keys(tunnel).sort(), ['auth_token', 'tunnel_key']);
  const base = fake.tunnelUrl(tunnel, 13, 'https');
  const headers = { 'X-Runloop-Tunnel-Authorization': `Bearer ${tunnel.auth_token}` };
  const { pty } = new Api({
    bearerToken: tunnel.auth_token, baseURL: base, http2: false, maxRetries: 0, httpAgent: new https.Agent({ ca }),
  });
  const attach = (view, more = { headers }) => connect(t, base.replace('https', 'wss') + view.connect_url, more);
  return { ...setup, tunnel, base, headers, pty, attach };
}

test('terminal: made, attached, resized, ended', async (t) => {
  const { box, pty, attach } = await startPty(t);
  const view = await pty.connect('pc-1', { cols: 91, rows: 31 });
  assert.deepEqual(view, {
    session_name: 'pc-1', status: 'ready', protocol_version: '1', connect_url: '/pty/pc-1/attach',
    created: true, attached: false, cols: 91, rows: 31, idle_ttl_seconds: 300,
  });
  const far = attach(view);
  assert.equal(await far.open, 101);
  far.socket.send(Buffer.from('stty size; pwd\r'));
  await far.says('31 91');
  await far.says(box.home);
  assert.deepEqual((({ created, attached }) => ({ created, attached }))(await pty.connect('pc-1')), {
    created: false, attached: true,
  });
  assert.equal(await attach(view).open, 409, 'one at a time');
  assert.deepEqual(await pty.control('pc-1', { action: 'resize', cols: 120, rows: 40 }), {
    session_name: 'pc-1', status: 'ok',
  });
  far.socket.send('stty size\r'); // as text: taken too
  await far.says('40 120');
  for (const [cols, rows] of [[0, 24], [80, 1001], [undefined, 24]])
    await assert.rejects(pty.control('pc-1', { action: 'resize', cols, rows }), BadRequestError);
  far.socket.send(Buffer.from('exit 3\r'));
  assert.equal(await within(far.closed, 'the end'), 4000);
  assert.ok(far.binary);
  assert.equal((await pty.connect('pc-1', { cols: 91 })).created, true, 'another shell');
  assert.equal((await pty.connect('pc-1')).cols, 80);
});

test('terminal: bytes of every value come and go', async (t) => {
  const { box, pty, attach } = await startPty(t);
  box.pty.command = ['sh', '-c', 'stty raw -echo; echo ready; exec cat'];
  const far = attach(await pty.connect('raw'));
  await far.open;
  // What it printed before is lost: there is no replay.
  await until(() => box.processes().some(({ cmdline }) => cmdline === 'cat'), 'cat');
  far.messages.length = 0;
  const bytes = randomBytes(400_000);
  for (let at = 0; at < bytes.length; at += 50_000) far.socket.send(bytes.subarray(at, at + 50_000));
  await until(() => Buffer.concat(far.messages).length >= bytes.length, 'all of the echo');
  assert.ok(Buffer.concat(far.messages).subarray(-bytes.length).equals(bytes));
});

test('terminal: signals and close', async (t) => {
  const { box, pty, attach } = await startPty(t);
  const far = attach(await pty.connect('s'));
  await far.open;
  far.socket.send('cat; echo "got $?"\r');
  await until(() => box.processes().some(({ cmdline }) => cmdline === 'cat'), 'cat');
  await pty.control('s', { action: 'signal', signal: 'SIGTERM' });
  await far.says('got 143');
  await assert.rejects(pty.control('s', { action: 'signal', signal: 'SIGNONE' }), BadRequestError);
  await assert.rejects(pty.control('s', { action: 'dance' }), BadRequestError);
  await assert.rejects(pty.control('s', {}), BadRequestError);
  await assert.rejects(pty.control('none', { action: 'close' }), NotFoundError);
  await assert.rejects(pty.connect('a.b'), BadRequestError);
  await assert.rejects(pty.connect('a'.repeat(257)), BadRequestError);
  await pty.control('s', { action: 'close' });
  assert.equal(await within(far.closed, 'the end'), 4000);
  await until(() => box.processes().length === 0, 'SIGHUP for the shell');
});

test('terminal: kept while nobody is attached, for a time', async (t) => {
  const { box, pty, attach } = await startPty(t);
  const first = attach(await pty.connect('kept'));
  await first.open;
  first.socket.send('x=kept; echo "-$x-"\r');
  await first.says('-kept-');
  first.socket.terminate();
  await until(async () => !(await pty.connect('kept')).attached, 'detached');
  const second = attach(await pty.connect('kept'));
  await second.open;
  second.socket.send('echo "+$x+"\r');
  await second.says('+kept+');
  assert.ok(!second.text.includes('-kept-'), 'no replay');

  box.pty.idleTtlMs = 30;
  second.socket.terminate();
  await until(() => box.ptySessions.size === 0 && box.processes().length === 0, 'the end of an idle session');
  assert.equal((await pty.connect('kept')).created, true);
  const late = { connect_url: '/pty/absent/attach' };
  assert.equal(await attach(late).open, 404);
});

test('terminal: who may come in', async (t) => {
  const { fake, tunnel, base, pty, headers } = await startPty(t);
  const url = `${base}/pty/a`;
  const token = tunnel.auth_token;
  const wss = `${base.replace('https', 'wss')}/pty/a/attach`;
  assert.equal((await ask(url)).status, 401);
  assert.equal((await ask(url, { headers: { Authorization: 'Bearer wrong' } })).status, 401);
  assert.equal((await ask(url, { headers })).status, 200);
  assert.equal((await pty.connect('a')).created, false); // with Authorization
  assert.equal(await connect(t, wss).open, 401);
  const far = connect(t, wss, { protocols: [token] });
  assert.equal(await far.open, 101);
  assert.equal(far.socket.protocol, token);
  far.socket.close();
  await far.closed;
  fake.ptyAuth = ['authorization'];
  assert.equal((await ask(url, { headers })).status, 401);
  fake.ptyAuth = ['query'];
  assert.equal((await ask(`${url}?token=${token}`)).status, 200);
  assert.equal((await ask(fake.tunnelUrl(tunnel, 80, 'https') + `?token=${token}`)).status, 404, 'port 13 only');
  assert.deepEqual(fake.leaks, []);
});

test('terminal: misbehaves on demand', async (t) => {
  const { fake, box, pty, attach } = await startPty(t);
  fake.misbehave({ on: 'pty', status: 502 });
  await assert.rejects(pty.connect('m'), InternalServerError);
  const view = await pty.connect('m');
  fake.misbehave({ on: 'pty.attach', status: 503, times: 2 });
  assert.equal(await attach(view).open, 503);
  assert.equal(await attach(view).open, 503);
  const far = attach(view);
  assert.equal(await far.open, 101);
  assert.deepEqual(names(fake).filter((name) => name.startsWith('pty')), [
    'pty.connect', 'pty.connect', 'pty.attach', 'pty.attach', 'pty.attach',
  ]);
  box.pty.closeCode = 1006;
  far.socket.send('exit\r');
  assert.equal(await within(far.closed, 'the end'), 1006);
  box.pty.connectUrl = null;
  assert.equal('connect_url' in (await pty.connect('n')), false);

  // Suspended, then resumed: the same name is another shell.
  await box.suspend();
  await assert.rejects(pty.connect('n'), InternalServerError);
  box.resume();
  await until(() => box.status === 'running', 'running again');
  assert.equal((await pty.connect('n')).created, true);
});

test('terminal: without bash there is sh', async (t) => {
  const { pty, attach } = await startPty(t, {}, { noBash: true });
  const far = attach(await pty.connect('sh'));
  await far.open;
  far.socket.send('echo "<${BASH_VERSION-none}>"\r');
  await far.says('<none>');
});

// --- the program ---

test('as a program', async (t) => {
  const main = fileURLToPath(new URL('../fakes/runloop/main.mjs', import.meta.url));
  const child = new Child(process.execPath, [main, '--boxes', '2', '--tunnel', 'open', '--key', 'k1'], { dir: '/tmp' });
  const at = await child.line((line) => line.startsWith('{') && JSON.parse(line), 'its URLs');
  t.cleanup(() => child.signal('SIGKILL'));
  assert.equal(at.boxes.length, 2);
  const [{ id, home, tunnel }] = at.boxes;
  const devbox = new RunloopSDK({ bearerToken: 'k1', baseURL: at.url, http2: false }).devbox.fromId(id);
  assert.equal((await devbox.getTunnel()).tunnel_key, tunnel.tunnel_key);
  await devbox.cmd.execAsync('exec setsid sleep 1000');
  const order = (path, body) =>
    ask(`${at.control}${path}`, { method: body ? 'POST' : 'GET', body: body && JSON.stringify(body) });
  await until(async () => (await order(`/boxes/${id}`)).json.processes.length === 1, 'a process');
  await order(`/boxes/${id}/suspend`, []);
  assert.equal((await devbox.getInfo()).status, 'suspended');
  await order('/misbehave', { on: 'retrieve', status: 404 });
  await assert.rejects(devbox.getInfo(), NotFoundError);
  await order('/set', { latencyMs: 20 });
  assert.equal((await order('/stats')).json.counts.retrieve, 3);
  assert.equal((await order('/nothing')).status, 404);
  assert.equal((await order('/boxes', { noBash: true })).json.status, 'running');
  assert.ok(existsSync(home));
  child.signal('SIGTERM');
  assert.deepEqual(await within(child.exit, 'its end'), { code: 0, signal: null });
  assert.equal(existsSync(home), false);
});
