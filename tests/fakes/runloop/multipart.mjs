// multipart.mjs -- a strict reader of multipart/form-data.

const unquote = (text) => text.replace(/^"(.*)"$/, '$1').replace(/\\(.)/g, '$1');

/** The parts of a body: [{name, filename, type, data}]. Throws what is wrong with it. */
export function parseMultipart(body, contentType = '') {
  const found = contentType.match(/^multipart\/form-data;.*?\bboundary=("[^"]+"|[^;\s]+)/i);
  if (!found) throw new Error('content type is not multipart/form-data with a boundary');
  const delimiter = Buffer.from(`\r\n--${unquote(found[1])}`);
  const text = Buffer.concat([Buffer.from('\r\n'), body]);
  const parts = [];
  let at = text.indexOf(delimiter);
  if (at !== 0) throw new Error('the body does not begin with the boundary');
  for (;;) {
    at += delimiter.length;
    if (text.subarray(at, at + 2).toString() === '--') return parts;
    if (text.subarray(at, at + 2).toString() !== '\r\n') throw new Error('bytes behind a boundary');
    const headEnd = text.indexOf('\r\n\r\n', at);
    const end = text.indexOf(delimiter, at + 2);
    if (headEnd < 0 || end < 0) throw new Error('the body ends within a part');
    const headers = {};
    for (const line of text.subarray(at + 2, headEnd).toString().split('\r\n')) {
      const colon = line.indexOf(':');
      if (colon > 0) headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim();
    }
    const disposition = headers['content-disposition'] ?? '';
    if (!/^form-data\b/i.test(disposition)) throw new Error('a part is not form-data');
    const parameter = (name) => {
      const value = disposition.match(new RegExp(`;\\s*${name}=("(?:[^"\\\\]|\\\\.)*"|[^;\\s]+)`, 'i'))?.[1];
      return value === undefined ? undefined : unquote(value);
    };
    parts.push({
      name: parameter('name'),
      filename: parameter('filename'),
      type: headers['content-type'],
      data: text.subarray(headEnd + 4, end),
    });
    at = end;
  }
}
