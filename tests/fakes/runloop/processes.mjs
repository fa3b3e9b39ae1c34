// processes.mjs -- the processes of one sandbox, wherever they have moved to: found in /proc by a marker
// in their environment, or as children of such a one.
import { readFileSync, readdirSync, readlinkSync } from 'node:fs';

export const MARKER = 'FAKE_DEVBOX';

const read = (path) => {
  try {
    return readFileSync(path);
  } catch {
    return null; // it has just ended
  }
};

/** Living processes of the sandbox, and those in roots and what they have started: [{pid, cmdline}]. */
export function find(marker, roots = []) {
  const needle = Buffer.from(`${MARKER}=${marker}\0`);
  const parents = new Map();
  const found = new Set();
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const stat = read(`/proc/${name}/stat`);
    if (!stat) continue;
    const [state, parent] = stat.subarray(stat.lastIndexOf(')') + 2).toString('latin1').split(' ');
    if (state === 'Z' || state === 'X') continue;
    const pid = Number(name);
    parents.set(pid, Number(parent));
    if (roots.includes(pid) || read(`/proc/${name}/environ`)?.includes(needle)) found.add(pid);
  }
  for (let grown = true; grown; ) {
    grown = false;
    for (const [pid, parent] of parents)
      if (!found.has(pid) && found.has(parent)) {
        found.add(pid);
        grown = true;
      }
  }
  found.delete(process.pid);
  return [...found].map((pid) => {
    const cmdline = (read(`/proc/${pid}/cmdline`) ?? '').toString().replace(/\0+$/, '').replaceAll('\0', ' ');
    return { pid, cmdline };
  });
}

/** SIGKILL for each; true when there was none left. */
export function killOnce(marker, roots) {
  const list = find(marker, roots);
  for (const { pid } of list) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      /* it has just ended */
    }
  }
  return list.length === 0;
}

/** Whether one of the pids listens on the TCP port. */
export function listens(pids, port) {
  const hex = port.toString(16).toUpperCase().padStart(4, '0');
  const inodes = new Set();
  for (const table of ['/proc/net/tcp', '/proc/net/tcp6'])
    for (const line of (read(table) ?? '').toString().split('\n').slice(1)) {
      const fields = line.trim().split(/\s+/);
      if (fields[3] === '0A' && fields[1].endsWith(`:${hex}`)) inodes.add(`socket:[${fields[9]}]`);
    }
  return pids.some((pid) => {
    try {
      return readdirSync(`/proc/${pid}/fd`).some((fd) => {
        try {
          return inodes.has(readlinkSync(`/proc/${pid}/fd/${fd}`));
        } catch {
          return false;
        }
      });
    } catch {
      return false;
    }
  });
}
