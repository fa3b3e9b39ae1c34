// embed.mjs WEB_DIR OPENAPI: writes the C that embeds every file of WEB_DIR, and the contract, to
// stdout. What it defines is declared in service/assets.h.
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { extname, join } from 'node:path';

const types = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.json': 'application/json',
  '.map': 'application/json',
  '.webmanifest': 'application/manifest+json',
  '.yaml': 'application/yaml',
  '.txt': 'text/plain; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.ico': 'image/x-icon',
  '.woff2': 'font/woff2',
};

function* walk(dir, prefix = '') {
  for (const entry of readdirSync(join(dir, prefix), { withFileTypes: true })) {
    const name = `${prefix}/${entry.name}`;
    if (entry.isDirectory()) yield* walk(dir, name);
    else if (!entry.name.startsWith('.')) yield [name, dir + name];
  }
}

const [webDir, openapi] = process.argv.slice(2);
const files = [...walk(webDir), ['/openapi.yaml', openapi]].sort(([a], [b]) => (a < b ? -1 : 1));
const declarations = [];
const entries = [];
files.forEach(([path, file], i) => {
  const type = types[extname(path)];
  if (!type) throw new Error(`embed.mjs: no media type for ${path}`);
  const bytes = readFileSync(file);
  const hash = createHash('sha256').update(bytes).digest('hex').slice(0, 16);
  declarations.push(`__asm__(".pushsection .rodata\\n.balign 16\\nasset_${i}:\\n"
	".incbin ${JSON.stringify(file).replace(/["\\]/g, '\\$&')}\\n.popsection");
extern const unsigned char asset_${i}[];`);
  entries.push(`	{ ${JSON.stringify(path)}, "${type}", asset_${i}, ${bytes.length}, "\\"${hash}\\"" },`);
});
process.stdout.write(`/* Made by scripts/embed.mjs. */
#include "service/assets.h"

${declarations.join('\n')}

const struct asset assets[] = {
${entries.join('\n')}
};
const size_t assets_count = ${files.length};
`);
