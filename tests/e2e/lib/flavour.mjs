// flavour.mjs -- what is tested: where the programs are, and how much of the heavy work they can take.
import { resolve } from 'node:path';

export const flavour = process.env.PTYCAST_FLAVOUR || 'release';
const buildDir = resolve(process.env.PTYCAST_BUILD_DIR || 'build');

/** Path of a built program: "ptycast", "ptycast-agent", "tests/tools/pattern". */
export const program = (name) => resolve(buildDir, name);

/** An amount of work (bytes, rounds) cut down for sanitizers. */
export const scaled = (amount) => (flavour === 'release' ? amount : Math.ceil(amount / 8));
