// What the page asks of the service, by its client and nothing else; and errors in words.

import {connect} from '/client.js'
import {t} from './i18n.js'

let tell = () => {}

/** Hear of each request whether it has reached the service: `heard(reached)`. */
export function watch(heard) {
  tell = heard
}

export const api = connect({fetch: async (...asked) => {
  try {
    const response = await fetch(...asked)
    tell(![502, 504].includes(response.status)) // a proxy says so where the service is away
    return response
  } catch (error) {
    if (error.name !== 'AbortError') tell(false)
    throw error
  }
}})

/** A sentence for a person. */
export function problemWords(error) {
  if (error.status && error.detail) return t('refused', {detail: error.detail})
  return t('offline')
}
