// Making elements: what all parts of the page use.

/**
 * Make an element. `props` are attributes; `class`, `text` and `on…` (listeners) are what they say; false or null leaves
 * an attribute out, true sets it empty.
 */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag)
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue
    if (name === 'text') node.textContent = value
    else if (name.startsWith('on')) node.addEventListener(name.slice(2), value)
    else node.setAttribute(name, value === true ? '' : value)
  }
  node.append(...children.filter(child => child !== null && child !== undefined))
  return node
}

/** One of the drawings that `index.html` holds as symbols. */
export function icon(name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg')
  svg.setAttribute('class', 'icon')
  svg.setAttribute('aria-hidden', 'true')
  const use = document.createElementNS('http://www.w3.org/2000/svg', 'use')
  use.setAttribute('href', `#i-${name}`)
  svg.append(use)
  return svg
}

/** A button that shows a drawing and says its name to those who don't see it. */
export function iconButton(name, label, onclick, props = {}) {
  return el('button', {type: 'button', class: 'icon-button', 'aria-label': label, title: label, onclick, ...props}, icon(name))
}

/** Does a key belong to an input method? Safari says so by a code, where the key also ends the composition. */
export function composing(event) {
  return event.isComposing || event.keyCode === 229
}

/** Do what may take away, or disable, what the keyboard is at: then its focus goes to `refuge`. */
export function keepingFocus(change, refuge) {
  const byKeyboard = document.activeElement?.matches(':focus-visible')
  change()
  const now = document.activeElement
  if (byKeyboard && (now === document.body || now?.disabled)) refuge.focus()
}

/** Put text into the clipboard; where the page has no right to (plain http), the old way. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text)
  } catch {
    const focused = document.activeElement
    const area = el('textarea', {class: 'visually-hidden', 'aria-hidden': 'true'})
    area.value = text
    document.body.append(area)
    area.select()
    document.execCommand('copy')
    area.remove()
    focused?.focus()
  }
}
