// build.mjs [OUT_DIR]: bundles the page into OUT_DIR (build/web): index.html, app.js, app.css.
// Names are flat: the service serves each file at /NAME, and index.html at /.
import { build } from 'esbuild';
import { copyFile, mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const source = dirname(fileURLToPath(import.meta.url));
const out = process.argv[2] ?? 'build/web';

await mkdir(out, { recursive: true });
await build({
  entryPoints: { app: join(source, 'main.js') },
  outdir: out,
  bundle: true,
  format: 'esm',
  target: ['es2022', 'chrome123', 'firefox120', 'safari17.5'], // the first with CSS light-dark()
  minify: true,
  legalComments: 'eof', // xterm.js is MIT: its notice goes with it
  logLevel: 'warning',
});
await copyFile(join(source, 'index.html'), join(out, 'index.html'));
