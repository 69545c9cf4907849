// A block of code: its language, a button that copies it, and its colours once it is complete.

import {el} from './dom.js'
import {t} from './i18n.js'
import {safeFragment} from './safe.js'

// What is larger is shown plain: colouring happens in one go, and would hold the page up.
const LARGEST = 100_000

/** Make a block; `code` is where its text goes. The button is found by `.copy-code` and answered by the thread. */
export function codeBlock(language) {
  const code = el('code')
  const name = language.toLowerCase()
  const node = el('div', {class: 'code', dir: 'ltr'},
    el('div', {class: 'code-head'},
      el('span', {class: 'code-language', text: language}),
      el('button', {type: 'button', class: 'copy-code', 'aria-label': t('copyCode'), text: t('copy')})),
    el('pre', {tabindex: '0'}, code))
  return {node, code, colour: () => colour(code, name)}
}

async function colour(code, language) {
  const text = code.textContent
  if (!language || text.length > LARGEST) return
  const {default: hljs} = await import('./vendor/highlight-11.12.0.js')
  if (!hljs.getLanguage(language)) return
  code.replaceChildren(safeFragment(hljs.highlight(text, {language, ignoreIllegals: true}).value))
}
