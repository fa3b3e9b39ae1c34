// tool.mjs -- runs ptycast to its end: its subcommands beside serve, and a serve that is refused.
import { spawn } from 'node:child_process';
import { program } from './flavour.mjs';
import { within } from './wait.mjs';

/** Runs ptycast in dir; resolves to {status, out, err}. */
export function run(dir, args, { input = '', env = {} } = {}) {
  const clean = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^PTYCAST_/.test(name)));
  const child = spawn(program('ptycast'), args, { cwd: dir, env: { ...clean, ...env } });
  const result = { out: '', err: '' };
  child.stdout.on('data', (data) => (result.out += data));
  child.stderr.on('data', (data) => (result.err += data));
  child.stdin.on('error', () => {}); // it need not read
  child.stdin.end(input);
  const end = new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status) => resolve({ ...result, status }));
  });
  return within(end, `end of ptycast ${args[0]}`);
}
