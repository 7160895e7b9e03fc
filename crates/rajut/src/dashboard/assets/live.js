// Asks the console's server again and again while somebody looks: what a page names as its sources. It rests while the page is
// hidden, waits for an answer before it asks again, asks more rarely where none comes, and tells how old the figures are.

const EVERY = 1000;
const EVERY_MAX = 8000;
const TIMEOUT = 8000;

/** No session, or not one of that role. */
export class Refused extends Error {
  constructor(status) {
    super(`status ${status}`);
    this.status = status;
  }
}

/** The JSON of a path. */
export async function ask(path, signal) {
  const limit = AbortSignal.timeout(TIMEOUT);
  const answer = await fetch(path, {
    credentials: "same-origin",
    signal: signal ? AbortSignal.any([signal, limit]) : limit,
  });
  if (answer.status === 401 || answer.status === 403) throw new Refused(answer.status);
  // Nobody of that name: nothing to show, and no trouble.
  if (answer.status === 404) return null;
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({}));
    throw new Error(told.error ?? `status ${answer.status}`);
  }
  return answer.json();
}

/** Follows one page's sources at a time. */
export class Live {
  #generation = 0;
  #stop = null;
  #wake = null;

  /** `told({data, error, at})` is called after each round. */
  constructor(told) {
    this.told = told;
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.#wake?.();
    });
  }

  /** Follows these sources (name → path, or [path, seconds between two questions]) instead of those before. */
  follow(sources) {
    this.#stop?.abort();
    this.#stop = new AbortController();
    this.#generation += 1;
    this.#run(this.#generation, sources, this.#stop.signal);
  }

  async #run(generation, sources, signal) {
    const data = {};
    const due = {};
    let wait = EVERY;
    let at = null;
    while (generation === this.#generation) {
      if (document.hidden) {
        await new Promise((resolve) => (this.#wake = resolve));
        continue;
      }
      const now = Date.now();
      const round = Object.entries(sources).filter(([name]) => !(now < due[name]));
      const results = await Promise.allSettled(
        round.map(async ([name, source]) => {
          const [path, seconds] = Array.isArray(source) ? source : [source, 0];
          data[name] = await ask(path, signal);
          due[name] = Date.now() + seconds * 1000 - EVERY / 2;
        }),
      );
      if (generation !== this.#generation) return;
      const failed = results.find((result) => result.status === "rejected");
      const error = failed?.reason ?? null;
      if (!error) at = Date.now();
      wait = error ? Math.min(wait * 2, EVERY_MAX) : EVERY;
      this.told({ data, error, at });
      if (error instanceof Refused && error.status === 401) return;
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, wait);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }
}
