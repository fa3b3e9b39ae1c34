// replay_filter.js -- keeps the terminal from answering questions a second time. Output that was
// there before this page came may hold terminal queries (DA, DSR, OSC 10 ...), which somebody answered
// then, or nobody will read: the answer would be typed into the shell.
//
// xterm.js answers while it parses, by the same event that brings keystrokes. So the questions are
// taken out in the parser, by handlers that swallow them during a replay; keystrokes are not touched.

const isReport = (params) => [11, 13, 14, 15, 16, 18, 19, 20, 21].includes(params[0]); // XTWINOPS that ask
const asks = (data) => data.includes('?');

/**
 * @param {import('@xterm/xterm').Terminal} term
 * @param {() => boolean} replaying asked when a query is parsed
 */
export function filterReplayedQueries(term, replaying) {
  const { parser } = term;
  const swallow = () => replaying();
  for (const id of [
    { final: 'c' }, // DA1
    { prefix: '>', final: 'c' }, // DA2
    { prefix: '=', final: 'c' }, // DA3
    { final: 'n' }, // DSR, cursor position
    { prefix: '?', final: 'n' },
    { intermediates: '$', final: 'p' }, // DECRQM
    { prefix: '?', intermediates: '$', final: 'p' },
    { prefix: '>', final: 'q' }, // XTVERSION
    { prefix: '?', final: 'u' }, // kitty keyboard
    { final: 'x' }, // DECREQTPARM
  ])
    parser.registerCsiHandler(id, swallow);
  parser.registerCsiHandler({ final: 't' }, (params) => replaying() && isReport(params));
  parser.registerDcsHandler({ intermediates: '$', final: 'q' }, swallow); // DECRQSS
  parser.registerDcsHandler({ intermediates: '+', final: 'q' }, swallow); // XTGETTCAP
  for (const colour of [4, 5, 10, 11, 12, 13, 14, 17, 19])
    parser.registerOscHandler(colour, (data) => replaying() && asks(data));
}

/** A focus report, which xterm.js also sends when output switches focus reports on. */
export function isFocusReport(data) {
  return data === '\x1b[I' || data === '\x1b[O';
}
