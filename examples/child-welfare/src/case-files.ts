// The protected service: children's case files. Everything that is read here is read by somebody with an identity.

import { randomUUID } from 'node:crypto'
import { Refused, serve } from './service.js'

interface CaseFile {
  readonly id: string
  readonly child: { readonly name: string; readonly born: string }
  readonly family: string
  readonly notes: readonly string[]
}

const files = new Map<string, CaseFile>([
  ['c-1', { id: 'c-1', child: { name: 'Sari', born: '2017-03-04' }, family: 'f-1', notes: ['first visit'] }],
  ['c-2', { id: 'c-2', child: { name: 'Budi', born: '2014-11-20' }, family: 'f-2', notes: [] }]
])

/** An example keeps its files in memory: at most this many. */
const FILES_MAX = 10_000

serve('case-files', {
  'GET /cases': () => [...files.keys()],
  'GET /cases/:id': ({ params }) => {
    const file = files.get(params['id'] ?? '')
    if (file === undefined) throw new Refused(404, 'there is no such case')
    return file
  },
  'POST /cases': ({ body }) => {
    const { name, born, family } = (body ?? {}) as { name?: unknown; born?: unknown; family?: unknown }
    if (typeof name !== 'string' || typeof born !== 'string' || typeof family !== 'string') {
      throw new Refused(400, 'a case needs name, born and family')
    }
    if (files.size >= FILES_MAX) throw new Refused(507, 'there is no room for another case')
    const file: CaseFile = { id: `c-${randomUUID()}`, child: { name, born }, family, notes: [] }
    files.set(file.id, file)
    return file
  }
})
