// Foster families and what they offer.

import { Refused, serve } from './service.js'

interface Family {
  readonly id: string
  readonly name: string
  readonly places: number
}

const families = new Map<string, Family>([
  ['f-1', { id: 'f-1', name: 'Keluarga Wijaya', places: 1 }],
  ['f-2', { id: 'f-2', name: 'Keluarga Santoso', places: 2 }]
])

serve('families', {
  'GET /families': () => [...families.values()],
  'GET /families/:id': ({ params }) => {
    const family = families.get(params['id'] ?? '')
    if (family === undefined) throw new Refused(404, 'there is no such family')
    return family
  }
})
