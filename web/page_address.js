// page_address.js -- what the URL's fragment says, and what of it stays there. A key or ticket is
// moved out of the address bar at once: the fragment is not sent to the service, but it would stay
// in the history and in what people copy.

const KEY = 'ptycast-key';

/**
 * Reads and cleans the fragment: #key=...&session=ID&ticket=...&role=view&transport=ws&open=SANDBOX
 * @returns {{session: string|null, transport: string|null, open: string|null, role: string|null, credential: {key?: string, ticket?: string}}}
 */
export function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const session = given.get('session');
  const transport = given.get('transport') === 'ws' ? 'ws' : given.has('transport') ? 'stream' : null;
  const ticket = given.get('ticket');
  let key = given.get('key');
  if (key) sessionStorage.setItem(KEY, key);
  else key = sessionStorage.getItem(KEY);
  const role = given.get('role') === 'view' ? 'view' : null;
  // A page that was opened with a ticket has it again after a reload, and shows that one session.
  if (ticket) sessionStorage.setItem(ticketKey(session), JSON.stringify({ ticket, role }));
  const kept = !given.get('key') && session ? JSON.parse(sessionStorage.getItem(ticketKey(session)) ?? 'null') : null;
  writeAddress(session, transport);
  if (kept) return { session, transport, open: null, role: kept.role, credential: { ticket: kept.ticket } };
  return { session, transport, open: given.get('open'), role: null, credential: key ? { key } : {} };
}

const ticketKey = (session) => `ptycast-ticket-${session}`;

/** Leaves in the address bar what a reload needs, and no secret. */
export function writeAddress(session, transport) {
  const fragment = new URLSearchParams();
  if (session) fragment.set('session', session);
  if (transport) fragment.set('transport', transport);
  const text = fragment.toString();
  history.replaceState(null, '', location.pathname + location.search + (text && `#${text}`));
}

export function keepKey(key) {
  sessionStorage.setItem(KEY, key);
}

export function forgetKey() {
  sessionStorage.removeItem(KEY);
}

/** A link that shows one session to somebody without a key. */
export function linkWithTicket(session, ticket, role) {
  const fragment = new URLSearchParams({ session, ticket, role });
  return `${location.origin}${location.pathname}#${fragment}`;
}
