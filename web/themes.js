// themes.js -- light and dark: the page follows the system unless the person chose.

const KEY = 'ptycast-theme';
const system = matchMedia('(prefers-color-scheme: dark)');

const dark = {
  background: '#101418',
  foreground: '#d7dce2',
  cursor: '#d7dce2',
  cursorAccent: '#101418',
  selectionBackground: '#3a5a80',
  selectionInactiveBackground: '#33404f',
  black: '#2b323a',
  red: '#ef7b7b',
  green: '#86c98a',
  yellow: '#dcbf73',
  blue: '#7aaef0',
  magenta: '#c79ae8',
  cyan: '#74c7cf',
  white: '#c8ced6',
  brightBlack: '#7d8894',
  brightRed: '#ff9a96',
  brightGreen: '#a5e0a6',
  brightYellow: '#f0d68f',
  brightBlue: '#9cc6ff',
  brightMagenta: '#dbb6f7',
  brightCyan: '#97dfe5',
  brightWhite: '#f4f6f8',
  scrollbarSliderBackground: '#ffffff26',
  scrollbarSliderHoverBackground: '#ffffff40',
  scrollbarSliderActiveBackground: '#ffffff59',
};

const light = {
  background: '#ffffff',
  foreground: '#1f2429',
  cursor: '#1f2429',
  cursorAccent: '#ffffff',
  selectionBackground: '#b9d6f8',
  selectionInactiveBackground: '#d9e0e8',
  black: '#1f2429',
  red: '#b92c28',
  green: '#1c7433',
  yellow: '#8a6100',
  blue: '#1457b8',
  magenta: '#7b39ad',
  cyan: '#0d6f7c',
  white: '#5f6871',
  brightBlack: '#68727c',
  brightRed: '#d13b35',
  brightGreen: '#248a40',
  brightYellow: '#9a6f00',
  brightBlue: '#2a6fd6',
  brightMagenta: '#9350c8',
  brightCyan: '#14828f',
  brightWhite: '#454d55',
  scrollbarSliderBackground: '#0000001f',
  scrollbarSliderHoverBackground: '#00000038',
  scrollbarSliderActiveBackground: '#0000004d',
};

/** @returns {'light'|'dark'} what is shown now */
export function currentTheme() {
  return localStorage.getItem(KEY) ?? (system.matches ? 'dark' : 'light');
}

/** xterm.js options that go with the theme. Many programs' colours are chosen for dark: on light,
 * what would be unreadable is darkened. */
export function terminalColours() {
  const theme = currentTheme();
  return { theme: theme === 'dark' ? dark : light, minimumContrastRatio: theme === 'dark' ? 1 : 4.5 };
}

export function toggleTheme() {
  const next = currentTheme() === 'dark' ? 'light' : 'dark';
  // What the system has is followed again, also when it changes at night.
  if (next === (system.matches ? 'dark' : 'light')) localStorage.removeItem(KEY);
  else localStorage.setItem(KEY, next);
  apply();
}

const listeners = new Set();

/** Calls fn now and at each change. */
export function onTheme(fn) {
  listeners.add(fn);
  fn(currentTheme());
}

function apply() {
  const theme = currentTheme();
  document.documentElement.dataset.theme = theme;
  for (const fn of listeners) fn(theme);
}

system.addEventListener('change', apply);
apply();
