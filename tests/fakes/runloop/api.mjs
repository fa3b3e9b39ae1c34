// api.mjs -- the HTTP API: its calls, by the names that rules and counters know them by.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import http2 from 'node:http2';
import { streamLog } from './execution.mjs';
import { parseMultipart } from './multipart.mjs';
import { encodeBody, ruleAnswer } from './rules.mjs';

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-([0-9a-f])[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/i;
const BODY_BYTES_MAX = 256 << 20;

/** An answer that is not 200. */
class Refusal extends Error {
  constructor(status, message, headers = {}) {
    super(message);
    this.answer = [status, headers, { message }];
  }
}

const bad = (message) => new Refusal(400, message);

const devbox = '/v1/devboxes/([^/]+)';
const execution = `${devbox}/executions/([^/]+)`;
const routes = [
  ['GET', '/v1/devboxes/evictions/watch', 'evictions', watchEvictions],
  ['GET', '/v1/devboxes', 'list', list],
  ['POST', '/v1/devboxes', 'create', create],
  ['POST', '/v1/devboxes/create_and_await_running', 'create', createAndWait],
  ['GET', devbox, 'retrieve', ({ box }) => box.view()],
  ['POST', `${devbox}/wait_for_status`, 'wait', waitForStatus],
  ['POST', `${devbox}/resume`, 'resume', resume],
  ['POST', `${devbox}/suspend`, 'suspend', suspend],
  ['POST', `${devbox}/keep_alive`, 'keep_alive', keepAlive],
  ['POST', `${devbox}/shutdown`, 'shutdown', shutdown],
  ['POST', `${devbox}/enable_tunnel`, 'enable_tunnel', enableTunnel],
  ['POST', `${devbox}/remove_tunnel`, 'remove_tunnel', removeTunnel],
  ['POST', `${devbox}/create_pty_tunnel`, 'create_pty_tunnel', ({ running }) => running().createPtyTunnel()],
  ['POST', `${devbox}/execute`, 'execute', execute],
  ['POST', `${devbox}/execute_async`, 'execute_async', executeAsync],
  ['POST', `${devbox}/execute_sync`, 'execute_sync', executeSync],
  ['POST', `${devbox}/upload_file`, 'upload', upload],
  ['POST', `${devbox}/download_file`, 'download', download],
  ['POST', `${devbox}/write_file_contents`, 'write_file', writeFile],
  ['POST', `${devbox}/read_file_contents`, 'read_file', readFile],
  ['GET', execution, 'execution', ({ one, lastN }) => one.view(lastN)],
  ['POST', `${execution}/wait_for_status`, 'execution_wait', waitForExecution],
  ['POST', `${execution}/kill`, 'kill', kill],
  ['POST', `${execution}/send_std_in`, 'send_std_in', sendStdIn],
  ['GET', `${execution}/stream_stdout_updates`, 'stdout', stream],
  ['GET', `${execution}/stream_stderr_updates`, 'stderr', stream],
].map(([method, path, name, handle]) => ({ method, path: new RegExp(`^${path}$`), name, handle }));

// --- devboxes ---

function list({ fake, query }) {
  const boxes = [...fake.boxes.values()].filter((box) => !query.get('status') || box.status === query.get('status'));
  const from = query.get('starting_after') ? boxes.findIndex((box) => box.id === query.get('starting_after')) + 1 : 0;
  const page = boxes.slice(from, from + Number(query.get('limit') ?? 20));
  return {
    devboxes: page.map((box) => box.view(box.status)),
    has_more: from + page.length < boxes.length,
    total_count: boxes.length,
  };
}

function create({ fake, body }) {
  const launch = body.launch_parameters ?? {};
  const box = fake.createBox({
    status: 'provisioning',
    name: body.name,
    metadata: body.metadata ?? {},
    env: body.environment_variables ?? {},
    arch: launch.architecture ?? 'x86_64',
    keepAliveTimeSeconds: launch.keep_alive_time_seconds ?? 3600,
    userParameters: launch.user_parameters ?? null,
  });
  if (body.tunnel) box.enableTunnel(body.tunnel);
  box.boot();
  return box.view(box.status);
}

// Not in the documentation of the API, but what the client's create() calls.
async function createAndWait(context) {
  const view = create(context);
  const box = context.fake.boxes.get(view.id);
  await reaches(box, ['running', 'failure', 'shutdown'], context.fake.holdMs, context.closed);
  return box.view(box.status);
}

// Resolves with true at one of the statuses, false when the time is up or the client has gone.
function reaches(box, statuses, ms, closed) {
  if (!box.statuses.length && statuses.includes(box.status)) return true;
  return new Promise((resolve) => {
    const settle = (value) => {
      clearTimeout(timer);
      box.off('status', look);
      closed.removeEventListener('abort', leave);
      resolve(value);
    };
    const look = () => !box.statuses.length && statuses.includes(box.status) && settle(true);
    const leave = () => settle(false);
    const timer = setTimeout(leave, ms);
    box.on('status', look);
    closed.addEventListener('abort', leave);
  });
}

async function waitForStatus({ fake, box, body, closed }) {
  const { statuses } = body;
  if (!Array.isArray(statuses) || !statuses.length) throw bad('statuses must not be empty');
  if (box.statuses.length) {
    const status = box.shownStatus();
    if (statuses.includes(status) || box.waitAnswersAll) return box.view(status);
  }
  const reached = await reaches(box, statuses, Math.min(fake.holdMs, 30_000), closed);
  if (!reached) throw new Refusal(408, 'status was not reached in time', { 'x-should-retry': 'true' });
  return box.view(box.status);
}

function resume({ box }) {
  if (['shutdown', 'failure'].includes(box.status)) throw bad(`devbox is in status ${box.status}`);
  box.resume();
  return box.view(box.status);
}

function suspend({ running, box }) {
  running();
  void box.suspend();
  return box.view(box.status);
}

function keepAlive({ running }) {
  running().keepAlives++;
  return ''; // 200 without a body
}

async function shutdown({ box, query }) {
  if (box.snapshots > 0 && query.get('force') !== 'true') throw new Refusal(409, 'a snapshot is in progress');
  await box.shutdown();
  return box.view(box.status);
}

function enableTunnel({ fake, running, body }) {
  const box = running();
  if (body.auth_mode && !['open', 'authenticated'].includes(body.auth_mode)) throw bad('unknown auth_mode');
  // Not documented. A new key breaks whoever has the old one, which is what a careful client avoids.
  if (box.tunnel && fake.secondTunnel === 'error') throw new Refusal(409, 'the devbox has a tunnel');
  if (box.tunnel && fake.secondTunnel === 'same') return box.tunnel;
  return box.enableTunnel(body);
}

function removeTunnel({ box }) {
  box.removeTunnel();
  return {};
}

function watchEvictions({ fake, accepts, startStream }) {
  if (!accepts('text/event-stream')) return ''; // plain text, and empty
  const out = startStream();
  fake.evictionWatchers.add(out);
  out.on('close', () => fake.evictionWatchers.delete(out));
  return undefined;
}

// --- commands ---

function command(body) {
  if (typeof body.command !== 'string') throw bad('command is required');
  return { command: body.command, shellName: body.shell_name ?? null };
}

async function execute({ running, body, lastN, closed }) {
  const id = body.command_id;
  if (typeof id !== 'string' || UUID.exec(id)?.[1] !== '7') throw bad('command_id must be a UUIDv7');
  const seconds = body.optimistic_timeout ?? 25;
  if (typeof seconds !== 'number' || seconds < 0 || seconds > 25) throw bad('optimistic_timeout is at most 25');
  const one = running().execute({ ...command(body), commandId: id });
  await one.reaches(['completed'], seconds * 1000, closed);
  return one.view(lastN);
}

function executeAsync({ running, body }) {
  return running().execute({ ...command(body), attachStdin: body.attach_stdin ?? false }).view();
}

async function executeSync({ running, body, closed }) {
  if (body.attach_stdin) throw bad('attach_stdin is not supported here');
  const one = running().execute(command(body));
  await one.reaches(['completed'], 600_000, closed);
  const { devbox_id, exit_status, stdout, stderr, shell_name } = one.view(Infinity);
  return { devbox_id, exit_status, stdout, stderr, shell_name };
}

async function waitForExecution({ fake, one, body, lastN, closed }) {
  const { statuses, timeout_seconds: seconds } = body;
  const known = ['queued', 'running', 'completed'];
  if (!Array.isArray(statuses) || !statuses.length || statuses.some((status) => !known.includes(status)))
    throw bad('statuses needs one of queued, running, completed');
  if ((seconds ?? 25) > 25) throw bad('timeout_seconds is at most 25');
  const reached = await one.reaches(statuses, Math.min((seconds ?? 25) * 1000, fake.holdMs), closed);
  if (!reached) throw new Refusal(408, 'status was not reached in time', { 'x-should-retry': 'true' });
  return one.view(lastN);
}

async function kill({ one, body }) {
  one.kill(body.kill_process_group ?? false);
  await one.reaches(['completed'], 5000);
  return one.view();
}

function sendStdIn({ one, box, body }) {
  if (!one.attachStdin) throw bad('the execution has no stdin attached');
  if (one.status !== 'running') throw bad('the execution does not run');
  const given = [body.text, body.signal].filter((value) => value !== undefined && value !== null);
  if (given.length !== 1) throw bad('either text or signal');
  if (box.stdinKills) one.kill(true);
  else if (typeof body.text === 'string') one.child.stdin.write(body.text);
  else if (body.signal === 'EOF') one.child.stdin.end();
  else if (body.signal === 'INTERRUPT') process.kill(-one.pid, 'SIGINT');
  else throw bad('unknown signal');
  return { devbox_id: box.id, execution_id: one.id, success: true };
}

function stream({ fake, box, one, name, query, rule, accepts, startStream }) {
  if (!accepts('text/event-stream')) return '';
  const offset = Number(query.get('offset') ?? 0);
  if (!Number.isInteger(offset) || offset < 0) throw bad('offset must be a number of bytes');
  const settings = { ...fake.sse, ...box.sse, ...rule.sse };
  void streamLog(name === 'stdout' ? one.stdout : one.stderr, offset, settings, startStream());
  return undefined;
}

// --- files ---

function locate(box, path) {
  try {
    return box.locate(path);
  } catch (error) {
    throw bad(error.message);
  }
}

function upload({ running, request, bytes }) {
  const box = running();
  let parts;
  try {
    parts = parseMultipart(bytes, request.headers['content-type']);
  } catch (error) {
    throw bad(error.message);
  }
  const [path, file] = parts;
  if (parts.length !== 2 || path.name !== 'path' || file.name !== 'file')
    throw bad(`parts must be path and file, in this order, not: ${parts.map((part) => part.name)}`);
  if (path.filename !== undefined) throw bad('path must not be a file');
  if (!file.filename || !file.type) throw bad('file needs a filename and a content type');
  const target = path.data.toString();
  locate(box, target);
  const written = box.writeFile(target, file.data);
  const sha256 = createHash('sha256').update(file.data).digest('hex');
  box.uploads.push({
    path: target, file: written, size: file.data.length, sha256, filename: file.filename, type: file.type,
  });
  return {};
}

function fileOf(box, path) {
  try {
    return readFileSync(locate(box, path));
  } catch (error) {
    if (error instanceof Refusal) throw error;
    throw error.code === 'ENOENT' ? new Refusal(404, `no such file: ${path}`) : bad(`${path}: ${error.code}`);
  }
}

function download({ running, body }) {
  return fileOf(running(), body.path);
}

function readFile({ running, body, accepts }) {
  if (!accepts('text/plain')) throw new Refusal(406, 'text/plain is all there is');
  return fileOf(running(), body.file_path).toString();
}

function writeFile({ running, body }) {
  const box = running();
  if (typeof body.contents !== 'string') throw bad('contents is required');
  locate(box, body.file_path);
  box.writeFile(body.file_path, body.contents);
  return { devbox_id: box.id, exit_status: 0, stdout: '', stderr: '', shell_name: null };
}

// --- requests ---

async function readBody(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > BODY_BYTES_MAX) throw new Refusal(413, 'the body is too large');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

// HTTP/2 has streams to cut, not connections.
function cut(response) {
  if (response.stream) response.stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR);
  else response.destroy();
}

function send(response, [status, headers, body], rule) {
  const [bytes, type] = encodeBody(body);
  const fields = { ...(type && { 'Content-Type': type }), 'Content-Length': bytes.length, ...headers };
  response.writeHead(status, fields);
  if (rule.cut === 'body') response.write(bytes.subarray(0, bytes.length / 2), () => cut(response));
  else response.end(status === 204 ? undefined : bytes);
}

// What is remembered of a body: not the bytes of an upload.
function digest(bytes, type = '') {
  if (bytes.length === 0) return null;
  if (!type.startsWith('application/json')) return { bytes: bytes.length };
  try {
    return JSON.parse(bytes.toString());
  } catch {
    return { bytes: bytes.length };
  }
}

/** Answers one request of the API. */
export async function answer(fake, request, response) {
  const { method, headers } = request;
  const { pathname, searchParams: query, search } = new URL(request.url, 'http://fake');
  let path = pathname;
  try {
    path = pathname.split('/').map(decodeURIComponent).join('/');
  } catch {
    /* left as it is: no route has it */
  }
  // By the path as it came: an id with a slash in it must not be another call.
  const route = routes.find((one) => one.method === method && one.path.test(pathname));
  const ids = route ? pathname.match(route.path).slice(1).map(decodeURIComponent) : [];
  const call = fake.note({
    name: route?.name ?? 'unknown',
    method,
    path,
    url: pathname + search,
    box: ids[0],
    headers,
  });
  const aborter = new AbortController();
  response.on('close', () => aborter.abort());
  request.on('error', () => {});
  response.on('error', () => {});
  response.on('finish', () => (call.status = response.statusCode));
  let rule = {};
  try {
    const bytes = await readBody(request);
    call.body = digest(bytes, headers['content-type']);
    if (fake.latencyMs) await new Promise((resolve) => setTimeout(resolve, fake.latencyMs));
    rule = fake.rules.take(call);
    if (rule.delayMs) await new Promise((resolve) => setTimeout(resolve, rule.delayMs));
    await rule.effect?.(call);
    if (rule.never) return;
    if (rule.cut === 'before') {
      cut(response);
      return;
    }
    const instead = ruleAnswer(rule);
    if (instead) {
      send(response, instead, rule);
      return;
    }
    if (fake.expired || headers.authorization !== `Bearer ${fake.key}`) throw new Refusal(401, 'invalid API key');
    if (!route) throw new Refusal(404, `no such call: ${method} ${pathname}`);
    const result = await route.handle(context(fake, { call, request, response, query, bytes, ids, rule, aborter }));
    if (result === undefined) return; // a stream
    if (rule.cut === 'answer') cut(response);
    else send(response, [200, rule.headers ?? {}, result], rule);
  } catch (error) {
    if (!response.headersSent && !response.destroyed)
      send(response, error.answer ?? [500, {}, { message: `the fake failed: ${error.stack}` }], rule);
    // The client's connection may break while its body is read.
    if (!error.answer && !request.destroyed) fake.failures.push(error);
  }
}

function context(fake, { call, request, response, query, bytes, ids, rule, aborter }) {
  let body = {};
  if (bytes.length && call.name !== 'upload') {
    if (!request.headers['content-type']?.startsWith('application/json')) throw bad('content type must be JSON');
    try {
      body = JSON.parse(bytes.toString());
    } catch {
      throw bad('the body is not JSON');
    }
    if (typeof body !== 'object' || body === null) throw bad('the body is not an object');
  }
  const box = ids.length ? fake.boxes.get(ids[0]) : undefined;
  if (ids.length && !box) throw new Refusal(404, 'devbox not found');
  const one = ids.length > 1 ? box.executions.get(ids[1]) : undefined;
  if (ids.length > 1 && !one) throw new Refusal(404, 'execution not found');
  const lastN = Number(query.get('last_n') ?? 100);
  if (!Number.isInteger(lastN) || lastN < 0) throw bad('last_n must be a number of lines');
  return {
    fake, name: call.name, request, query, bytes, body, box, one, lastN, rule,
    closed: aborter.signal,
    accepts: (type) => (request.headers.accept ?? '').includes(type),
    running() {
      if (box.status !== 'running') throw new Refusal(fake.notRunningStatus, `devbox is in status ${box.status}`);
      return box;
    },
    startStream() {
      response.writeHead(200, { 'Content-Type': 'text/event-stream; charset=utf-8', 'Cache-Control': 'no-cache' });
      response.flushHeaders();
      if (response.stream) return response.stream;
      response.socket.setNoDelay(true);
      return response;
    },
  };
}
