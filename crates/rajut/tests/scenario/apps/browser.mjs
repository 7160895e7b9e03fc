// Drives Chromium for a scenario: commands come as lines of JSON on standard input, each is answered by one line. Speaks the DevTools
// protocol over two pipes, so that it needs no package and no port. `node browser.mjs ORIGIN` ends with its standard input.
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const origin = process.argv[2];
const profile = mkdtempSync(join(tmpdir(), "rajut-browser-"));
const flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--force-color-profile=srgb", "--remote-debugging-pipe", `--user-data-dir=${profile}`, "about:blank"];
const browser = spawn(process.env.RAJUT_CHROMIUM ?? "chromium", flags, { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
const ended = new Promise((resolve) => browser.on("exit", resolve));
let quitting = false;
async function quit() {
  quitting = true;
  browser.kill("SIGKILL");
  await ended;
  // Its children go a moment later.
  rmSync(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  process.exit(0);
}
ended.then(() => quitting || process.exit(1));

let number = 0;
const waiting = new Map();
const listeners = [];
let left = Buffer.alloc(0);
browser.stdio[4].on("data", (bytes) => {
  left = Buffer.concat([left, bytes]);
  for (let end = left.indexOf(0); end >= 0; end = left.indexOf(0)) {
    const message = JSON.parse(left.subarray(0, end).toString());
    left = left.subarray(end + 1);
    if (message.id) {
      const { resolve, reject } = waiting.get(message.id);
      waiting.delete(message.id);
      if (message.error) reject(new Error(message.error.message));
      else resolve(message.result);
    } else for (const listener of listeners) listener(message);
  }
});

function send(method, params = {}, sessionId) {
  number += 1;
  browser.stdio[3].write(`${JSON.stringify({ id: number, method, params, sessionId })}\0`);
  const id = number;
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
}

const { targetId } = await send("Target.createTarget", { url: "about:blank" });
const { sessionId } = await send("Target.attachToTarget", { targetId, flatten: true });
const page = (method, params) => send(method, params, sessionId);
const problems = [];
const foreign = [];
let fake = null;
listeners.push(({ method, params }) => {
  if (method === "Runtime.consoleAPICalled" && (params.type === "error" || params.type === "warning")) problems.push(params.args.map((one) => one.value ?? one.description).join(" "));
  if (method === "Runtime.exceptionThrown") problems.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
  if (method === "Log.entryAdded" && params.entry.level === "error") problems.push(`${params.entry.text} ${params.entry.url ?? ""}`);
  if (method === "Network.requestWillBeSent" && !params.request.url.startsWith(`${origin}/`)) foreign.push(params.request.url);
  if (method === "Fetch.requestPaused") {
    const name = new URL(params.request.url).pathname.split("/").at(-1);
    page("Fetch.fulfillRequest", { requestId: params.requestId, responseCode: 200, responseHeaders: [{ name: "content-type", value: "application/json" }], body: Buffer.from(JSON.stringify(fake[name])).toString("base64") }).catch(() => {});
  }
});
for (const domain of ["Page", "Runtime", "Log", "Network"]) await page(`${domain}.enable`);

async function evaluate(expression) {
  const { result, exceptionDetails } = await page("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
  if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
  return result.value;
}

const KEYS = { Tab: 9, Enter: 13, Escape: 27, ArrowRight: 39, ArrowLeft: 37, ArrowUp: 38, ArrowDown: 40 };

const commands = {
  open: ({ url }) => page("Page.navigate", { url }),
  evaluate: ({ script }) => evaluate(script),
  /** Milliseconds until it holds. */
  async wait({ script, seconds = 20 }) {
    const began = Date.now();
    while (!(await evaluate(`Boolean(${script})`))) {
      if (Date.now() - began > seconds * 1000) throw new Error(`not within ${seconds} s: ${script}\n${await evaluate("document.body.innerText.slice(0, 1500)")}\n${problems.join("\n")}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    return Date.now() - began;
  },
  size: ({ width, height }) => page("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: false }),
  scheme: ({ value }) => page("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value }] }),
  async key({ key, shift = false }) {
    const event = { key, code: key, windowsVirtualKeyCode: KEYS[key], modifiers: shift ? 8 : 0, ...(key === "Enter" ? { text: "\r" } : {}) };
    await page("Input.dispatchKeyEvent", { type: "keyDown", ...event });
    await page("Input.dispatchKeyEvent", { type: "keyUp", ...event });
  },
  /** What axe finds: one line each. */
  async axe({ path }) {
    await evaluate(`${readFileSync(path, "utf8")}; undefined`);
    return evaluate(`axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }).then(({ violations }) =>
      violations.flatMap(({ id, help, nodes }) => nodes.map((node) => id + ": " + help + " " + node.target.join(" ") + " " + (node.any[0]?.message ?? ""))))`);
  },
  async screenshot({ file }) {
    const { data } = await page("Page.captureScreenshot", { format: "png" });
    writeFileSync(file, Buffer.from(data, "base64"));
  },
  /** From now on these answers (name → JSON) are given instead of the server's. */
  async fake({ answers }) {
    fake = answers;
    const patterns = Object.keys(answers ?? {}).map((name) => ({ urlPattern: `*/api/${name}*` }));
    await (answers ? page("Fetch.enable", { patterns }) : page("Fetch.disable"));
  },
  quit,
  report: () => ({ problems, foreign }),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...rest } = JSON.parse(line);
  const run = async () => commands[command](rest);
  const answer = await run().then(
    (value) => ({ value: value ?? null }),
    (error) => ({ error: String(error.message ?? error) }),
  );
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await quit();
