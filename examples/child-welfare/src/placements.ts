// Which child can live where: asks for the case and the families.

import { address, serve } from './service.js'

interface Case { readonly id: string; readonly family: string }
interface Family { readonly id: string; readonly name: string; readonly places: number }

serve('placements', {
  'GET /placements/:case': async ({ params, ask }) => {
    const file = await ask<Case>(`${address('case-files')}/cases/${encodeURIComponent(params['case'] ?? '')}`)
    const families = await ask<Family[]>(`${address('families')}/families`)
    const fitting = families.filter((family) => family.places > 0)
    return { case: file.id, now: file.family, fitting: fitting.map((family) => family.name) }
  }
})
