// Reports come in here and become cases.

import { address, Refused, serve } from './service.js'

interface Report { readonly child?: unknown; readonly born?: unknown; readonly family?: unknown }

serve('intake', {
  'POST /reports': async ({ body, ask }) => {
    const { child, born, family } = (body ?? {}) as Report
    if (typeof child !== 'string' || typeof born !== 'string') throw new Refused(400, 'a report needs child and born')
    const file = await ask<{ id: string }>(`${address('case-files')}/cases`, {
      method: 'POST',
      body: { name: child, born, family: typeof family === 'string' ? family : 'f-1' }
    })
    return { accepted: true, case: file.id }
  }
})
