// What the five services share: a JSON server on Node's own HTTP, a client on Node's own fetch, and a graceful end.
// Nothing here knows of the mesh: names, ports and headers are those of any Kubernetes cluster.

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'

/** Headers that tie the requests of one trace together; an application must pass them on. */
const TRACE_HEADERS = ['x-request-id', 'traceparent', 'tracestate', 'baggage', 'b3'] as const

export interface Call {
  readonly method: string
  readonly path: string
  readonly query: URLSearchParams
  readonly params: Readonly<Record<string, string>>
  readonly body: unknown
  /** Calls another service with this request's trace. */
  ask<T>(url: string, init?: { method?: string; body?: unknown }): Promise<T>
}

export class Refused extends Error {
  constructor(readonly status: number, message: string) {
    super(message)
  }
}

type Handler = (call: Call) => Promise<unknown> | unknown
type Routes = Readonly<Record<string, Handler>>

/** The largest body that is taken, in bytes. */
const BODY_MAX = 1024 * 1024

async function readBody(request: IncomingMessage): Promise<unknown> {
  const pieces: Buffer[] = []
  let length = 0
  for await (const piece of request) {
    length += (piece as Buffer).length
    if (length > BODY_MAX) throw new Refused(413, 'the body is too large')
    pieces.push(piece as Buffer)
  }
  if (length === 0) return undefined
  try {
    return JSON.parse(Buffer.concat(pieces).toString('utf8'))
  } catch {
    throw new Refused(400, 'the body is not JSON')
  }
}

function match(pattern: string, path: string): Record<string, string> | undefined {
  const wanted = pattern.split('/')
  const given = path.split('/')
  if (wanted.length !== given.length) return undefined
  const params: Record<string, string> = {}
  for (const [index, part] of wanted.entries()) {
    const value = given[index] ?? ''
    if (part.startsWith(':')) params[part.slice(1)] = decodeURIComponent(value)
    else if (part !== value) return undefined
  }
  return params
}

function traceOf(request: IncomingMessage): Record<string, string> {
  const trace: Record<string, string> = {}
  for (const name of TRACE_HEADERS) {
    const value = request.headers[name]
    if (typeof value === 'string') trace[name] = value
  }
  return trace
}

async function ask<T>(trace: Record<string, string>, url: string, init?: { method?: string; body?: unknown }): Promise<T> {
  const response = await fetch(url, {
    method: init?.method ?? 'GET',
    headers: init?.body === undefined ? trace : { ...trace, 'content-type': 'application/json' },
    ...(init?.body === undefined ? {} : { body: JSON.stringify(init.body) })
  })
  const text = await response.text()
  if (!response.ok) throw new Refused(response.status === 404 ? 404 : 502, `${url} answered ${response.status}: ${text}`)
  return JSON.parse(text) as T
}

/** Serves `routes` (`'GET /cases/:id'`) and `/healthz` on `PORT` until SIGTERM. */
export function serve(name: string, routes: Routes): void {
  let stopping = false
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const url = new URL(request.url ?? '/', 'http://service')
    const reply = (status: number, value: unknown): void => {
      response.writeHead(status, { 'content-type': 'application/json', 'x-service': name })
      response.end(JSON.stringify(value))
    }
    if (url.pathname === '/healthz') return reply(stopping ? 503 : 200, { service: name, stopping })
    try {
      for (const [route, handler] of Object.entries(routes)) {
        const [method, pattern] = route.split(' ') as [string, string]
        const params = method === request.method ? match(pattern, url.pathname) : undefined
        if (params === undefined) continue
        const trace = traceOf(request)
        const call: Call = {
          method,
          path: url.pathname,
          query: url.searchParams,
          params,
          body: await readBody(request),
          ask: (target, init) => ask(trace, target, init)
        }
        return reply(method === 'POST' ? 201 : 200, await handler(call))
      }
      reply(404, { error: `${name} has nothing at ${request.method} ${url.pathname}` })
    } catch (error) {
      const status = error instanceof Refused ? error.status : 500
      reply(status, { error: error instanceof Error ? error.message : String(error) })
    }
  }
  const server = createServer((request, response) => void answer(request, response))
  const port = Number(process.env['PORT'] ?? 8080)
  server.listen(port, () => console.log(`${name} listens on ${port}`))
  process.on('SIGTERM', () => {
    stopping = true
    server.close(() => process.exit(0))
  })
}

/** Where another service is: its ordinary name, or what the environment says (without a network namespace). */
export function address(service: string): string {
  const variable = `${service.toUpperCase().replaceAll('-', '_')}_URL`
  return process.env[variable] ?? `http://${service}:8080`
}
