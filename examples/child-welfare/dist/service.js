// What the five services share: a JSON server on Node's own HTTP, a client on Node's own fetch, and a graceful end.
// Nothing here knows of the mesh: names, ports and headers are those of any Kubernetes cluster.
import { createServer } from 'node:http';
/** Headers that tie the requests of one trace together; an application must pass them on. */
const TRACE_HEADERS = ['x-request-id', 'traceparent', 'tracestate', 'baggage', 'b3'];
export class Refused extends Error {
    status;
    constructor(status, message) {
        super(message);
        this.status = status;
    }
}
/** The largest body that is taken, in bytes. */
const BODY_MAX = 1024 * 1024;
async function readBody(request) {
    const pieces = [];
    let length = 0;
    for await (const piece of request) {
        length += piece.length;
        if (length > BODY_MAX)
            throw new Refused(413, 'the body is too large');
        pieces.push(piece);
    }
    if (length === 0)
        return undefined;
    try {
        return JSON.parse(Buffer.concat(pieces).toString('utf8'));
    }
    catch {
        throw new Refused(400, 'the body is not JSON');
    }
}
function match(pattern, path) {
    const wanted = pattern.split('/');
    const given = path.split('/');
    if (wanted.length !== given.length)
        return undefined;
    const params = {};
    for (const [index, part] of wanted.entries()) {
        const value = given[index] ?? '';
        if (part.startsWith(':'))
            params[part.slice(1)] = decodeURIComponent(value);
        else if (part !== value)
            return undefined;
    }
    return params;
}
function traceOf(request) {
    const trace = {};
    for (const name of TRACE_HEADERS) {
        const value = request.headers[name];
        if (typeof value === 'string')
            trace[name] = value;
    }
    return trace;
}
async function ask(trace, url, init) {
    const response = await fetch(url, {
        method: init?.method ?? 'GET',
        headers: init?.body === undefined ? trace : { ...trace, 'content-type': 'application/json' },
        ...(init?.body === undefined ? {} : { body: JSON.stringify(init.body) })
    });
    const text = await response.text();
    if (!response.ok)
        throw new Refused(response.status === 404 ? 404 : 502, `${url} answered ${response.status}: ${text}`);
    return JSON.parse(text);
}
/** Serves `routes` (`'GET /cases/:id'`) and `/healthz` on `PORT` until SIGTERM. */
export function serve(name, routes) {
    let stopping = false;
    const answer = async (request, response) => {
        const url = new URL(request.url ?? '/', 'http://service');
        const reply = (status, value) => {
            response.writeHead(status, { 'content-type': 'application/json', 'x-service': name });
            response.end(JSON.stringify(value));
        };
        if (url.pathname === '/healthz')
            return reply(stopping ? 503 : 200, { service: name, stopping });
        try {
            for (const [route, handler] of Object.entries(routes)) {
                const [method, pattern] = route.split(' ');
                const params = method === request.method ? match(pattern, url.pathname) : undefined;
                if (params === undefined)
                    continue;
                const trace = traceOf(request);
                const call = {
                    method,
                    path: url.pathname,
                    query: url.searchParams,
                    params,
                    body: await readBody(request),
                    ask: (target, init) => ask(trace, target, init)
                };
                return reply(method === 'POST' ? 201 : 200, await handler(call));
            }
            reply(404, { error: `${name} has nothing at ${request.method} ${url.pathname}` });
        }
        catch (error) {
            const status = error instanceof Refused ? error.status : 500;
            reply(status, { error: error instanceof Error ? error.message : String(error) });
        }
    };
    const server = createServer((request, response) => void answer(request, response));
    const port = Number(process.env['PORT'] ?? 8080);
    server.listen(port, () => console.log(`${name} listens on ${port}`));
    process.on('SIGTERM', () => {
        stopping = true;
        server.close(() => process.exit(0));
    });
}
/** Where another service is: its ordinary name, or what the environment says (without a network namespace). */
export function address(service) {
    const variable = `${service.toUpperCase().replaceAll('-', '_')}_URL`;
    return process.env[variable] ?? `http://${service}:8080`;
}
