// The words of the interface, from one table (texts.json: key → [English, Indonesian]); what the mesh tells (names, findings) stays
// as it is told.

const LANGUAGES = ["en", "id"];
const KEPT = "rajut.language";
let table = {};
let chosen = 0;

/** Loads the table and the choice that was made last, or the browser's language. */
export async function loadTexts() {
  const answer = await fetch("/assets/texts.json");
  table = await answer.json();
  const wanted = localStorage.getItem(KEPT) ?? navigator.language.slice(0, 2);
  choose(LANGUAGES.includes(wanted) ? wanted : "en");
}

/** `en` or `id`. */
export function language() {
  return LANGUAGES[chosen];
}

/** Takes another language. */
export function choose(code) {
  chosen = Math.max(0, LANGUAGES.indexOf(code));
  localStorage.setItem(KEPT, code);
  document.documentElement.lang = code;
}

/** The text of a key with its `{name}` parts filled in. */
export function t(key, parts = {}) {
  const text = table[key]?.[chosen] ?? key;
  return text.replace(/\{(\w+)\}/g, (_, name) => String(parts[name] ?? ""));
}
