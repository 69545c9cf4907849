// What the page asks of the service, by its client and nothing else; and errors in words.

import {connect} from '/client.js'
import {t} from './i18n.js'

export const api = connect()

/** A sentence for a person. */
export function problemWords(error) {
  if (error.status && error.detail) return t('refused', {detail: error.detail})
  return t('offline')
}
