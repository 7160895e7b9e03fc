// What the social workers' browser talks to.

import { address, serve } from './service.js'

serve('portal', {
  'GET /': () => ({ service: 'portal', try: ['/overview/c-1', 'POST /reports'] }),
  'GET /overview/:case': async ({ params, ask }) => {
    const id = encodeURIComponent(params['case'] ?? '')
    const [file, placement] = await Promise.all([
      ask<unknown>(`${address('case-files')}/cases/${id}`),
      ask<unknown>(`${address('placements')}/placements/${id}`)
    ])
    return { file, placement }
  },
  'POST /reports': ({ body, ask }) => ask<unknown>(`${address('intake')}/reports`, { method: 'POST', body })
})
