// session_words.js -- states, ends and ages as people read them.

const STATES = {
  provisioning: 'Starting…',
  connecting: 'Connecting…',
  open: 'Open',
  reconnecting: 'Reconnecting to the sandbox…',
  ended: 'Ended',
};

const STEPS = {
  devbox: 'Looking at the sandbox…',
  wait: 'Waiting for the sandbox…',
  resume: 'Waking the sandbox…',
  tunnel: 'Opening a tunnel…',
  install: 'Installing the agent…',
  start: 'Starting the agent…',
  'pty-tunnel': 'Asking for a terminal…',
};

/** @returns {{text: string, tone: 'good'|'busy'|'bad'|'over'}} */
export function describeState(state) {
  return { text: STATES[state] ?? 'Connecting…', tone: state === 'open' ? 'good' : state === 'ended' ? 'over' : 'busy' };
}

/** @param {{reason: string, exitCode?: number|null, signal?: string|null}} ended */
export function describeEnd({ reason, exitCode = null, signal = null }) {
  switch (reason) {
    case 'exited':
      if (signal) return { text: `Ended by ${signal}`, tone: 'bad' };
      if (exitCode === null) return { text: 'Exited', tone: 'over' };
      return { text: `Exited with code ${exitCode}`, tone: exitCode === 0 ? 'over' : 'bad' };
    case 'closed':
      return { text: 'Closed', tone: 'over' };
    case 'failed':
      return { text: 'Could not be started', tone: 'bad' };
    case 'expired':
      return { text: 'Expired', tone: 'over' };
    case 'lost':
      return { text: 'Lost', tone: 'bad' };
    default:
      return { text: 'Ended', tone: 'over' };
  }
}

/** What the status of an attached session (session_view.js) comes to. */
export function describeStatus({ state, step, link, ended }) {
  if (ended) return describeEnd(ended);
  if (link === 'stopped') return { text: 'Not connected', tone: 'bad' };
  if (link === 'lost') return { text: 'Reconnecting…', tone: 'busy' };
  if (link === 'connecting') return { text: 'Connecting…', tone: 'busy' };
  if (state === 'provisioning' && STEPS[step]) return { text: STEPS[step], tone: 'busy' };
  return describeState(state);
}

/** @param {number} ms */
export function describeAge(ms) {
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 1) return 'now';
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 60 * 24) return `${Math.floor(minutes / 60)} h`;
  return `${Math.floor(minutes / 60 / 24)} d`;
}
