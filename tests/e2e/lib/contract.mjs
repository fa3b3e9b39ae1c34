// contract.mjs -- holds every answer against openapi.yaml: its status, headers, media type and body.
import { readFileSync } from 'node:fs';
import Ajv2020 from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import YAML from 'yaml';

export const source = readFileSync(new URL('../../../openapi.yaml', import.meta.url), 'utf8');
export const contract = YAML.parse(source);

const ROOT = 'https://ptycast/openapi';
const ajv = new Ajv2020.default({ strict: false, allErrors: true });
addFormats.default(ajv);
ajv.addSchema({ ...contract, $id: ROOT });

const compiled = new Map();
function validator(pointer) {
  if (!compiled.has(pointer)) compiled.set(pointer, ajv.compile({ $ref: `${ROOT}#${pointer}` }));
  return compiled.get(pointer);
}

const escape = (part) => part.replaceAll('~', '~0').replaceAll('/', '~1');

// Follows a $ref; returns [value, pointer].
function at(pointer) {
  const value = pointer
    .split('/')
    .slice(1)
    .reduce((node, part) => node?.[part.replaceAll('~1', '/').replaceAll('~0', '~')], contract);
  return value?.$ref ? at(value.$ref.slice(1)) : [value, pointer];
}

const templates = Object.keys(contract.paths).map((path) => ({
  path,
  pattern: new RegExp(`^${path.replaceAll('.', '\\.').replaceAll(/\{\w+\}/g, '[^/]+')}$`),
}));

/** The path template that a request's path falls under, or undefined. */
export function templateOf(path) {
  const name = path.split('?')[0];
  return templates.find(({ pattern }) => pattern.test(name))?.path;
}

/** All [METHOD, template, operation] of the contract. */
export const operations = templates.flatMap(({ path }) =>
  Object.entries(contract.paths[path])
    .filter(([method]) => ['get', 'post', 'put', 'patch', 'delete'].includes(method))
    .map(([method, operation]) => [method.toUpperCase(), path, operation]),
);

class ContractError extends Error {}

function check(pointer, value, what) {
  const validate = validator(pointer);
  if (validate(value)) return;
  const errors = validate.errors.map((e) => `${e.instancePath || '/'} ${e.message} ${JSON.stringify(e.params)}`);
  throw new ContractError(`${what} is not as in ${pointer}:\n  ${errors.join('\n  ')}\n  ${JSON.stringify(value)}`);
}

// A header's text as the type its schema has.
const typed = (text, schema) => (at2(schema).type === 'integer' && /^\d+$/.test(text) ? Number(text) : text);
const at2 = (schema) => (schema?.$ref ? at(schema.$ref.slice(1))[0] : (schema ?? {}));

/**
 * Throws unless the contract has this answer.
 * @param {object} answer {method, path, status, headers, body: Buffer|null (null: not read)}
 */
export function holdAgainstContract({ method, path, status, headers, body }) {
  const what = `${method} ${path} -> ${status}`;
  const template = templateOf(path);
  const operation = contract.paths[template]?.[method === 'HEAD' ? 'get' : method.toLowerCase()];
  let pointer;
  if (template === undefined) pointer = status === 404 && '/components/responses/NotFound';
  else if (method === 'OPTIONS') pointer = status === 204 && '/components/responses/Options';
  else if (!operation) pointer = status === 405 && '/components/responses/MethodNotAllowed';
  else if (operation.responses[status]) {
    const name = method === 'HEAD' ? 'get' : method.toLowerCase();
    pointer = `/paths/${escape(template)}/${name}/responses/${status}`;
  }
  if (!pointer) throw new ContractError(`${what}: openapi.yaml has no such answer`);
  const [response, base] = at(pointer);

  for (const [name, header] of Object.entries(response.headers ?? {})) {
    const [spec, specPointer] = header.$ref ? at(header.$ref.slice(1)) : [header, `${base}/headers/${name}`];
    const text = headers[name.toLowerCase()];
    if (text === undefined) {
      if (spec.required) throw new ContractError(`${what}: header ${name} is missing`);
      continue;
    }
    for (const one of [text].flat()) check(`${specPointer}/schema`, typed(one, spec.schema), `${what}: header ${name}`);
  }

  if (method === 'HEAD') {
    if (body?.length) throw new ContractError(`${what}: has a body`);
    return;
  }
  const type = headers['content-type']?.split(';')[0].trim().toLowerCase();
  if (!response.content) {
    if (body?.length) throw new ContractError(`${what}: has a body: ${body.subarray(0, 200)}`);
    return;
  }
  if (!response.content[type])
    throw new ContractError(`${what}: Content-Type is ${type}, body ${body?.subarray(0, 200)}`);
  if (body === null || type === 'text/event-stream') return;
  let value = body.toString('utf8');
  if (/[/+]json$/.test(type)) {
    try {
      value = JSON.parse(value);
    } catch (error) {
      throw new ContractError(`${what}: body is not JSON (${error.message}): ${body.subarray(0, 200)}`);
    }
    if (type === 'application/problem+json' && value.status !== status)
      throw new ContractError(`${what}: problem says status ${value.status}`);
  }
  check(`${base}/content/${escape(type)}/schema`, value, `${what}: body`);
}

const eventSchemas = {
  state: 'StateEvent',
  resize: 'ResizeEvent',
  reset: 'ResetEvent',
  exit: 'ExitEvent',
};

/** Holds the data of one SSE event against its schema. */
export function holdEvent(name, data, format) {
  const schema =
    name === 'output' ? (format === 'base64' ? 'OutputBase64Event' : 'OutputTextEvent') : eventSchemas[name];
  if (!schema) throw new ContractError(`there is no event "${name}"`);
  check(`/components/schemas/${schema}`, data, `event ${name}`);
}

const ptyEventSchemas = { output: 'OutputTextEvent', exit: 'PtyExitEvent', error: 'PtyErrorEvent', state: 'StateEvent' };

/** The same for a stream of /pty or /tty. */
export function holdPtyEvent(name, data) {
  const schema = ptyEventSchemas[name];
  if (!schema) throw new ContractError(`there is no event "${name}" on /pty`);
  check(`/components/schemas/${schema}`, data, `event ${name}`);
  // Sessions' states are not told there, only that the store cannot be asked for one: that has no size.
  if (name === 'state' && data.cols !== undefined)
    throw new ContractError(`a session's state on /pty: ${JSON.stringify(data)}`);
}

const messages = '/components/schemas/WsServerMessage/oneOf';
const branches = Object.fromEntries(
  at(messages)[0].map((branch, i) => [branch.properties.event.const, `${messages}/${i}`]),
);

/** Holds a text message of the server on a WebSocket against its schema. */
export function holdMessage(message) {
  const branch = branches[message.event];
  if (!branch) throw new ContractError(`there is no message "${message.event}": ${JSON.stringify(message)}`);
  check(branch, message, 'WebSocket message');
}
