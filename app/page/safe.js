// HTML that somebody else wrote, made harmless: only tags that format text, no style, no id, nothing that loads.

import DOMPurify from './vendor/dompurify-3.4.18.js'

const RULES = {
  ALLOWED_TAGS: [
    'a', 'b', 'blockquote', 'br', 'code', 'del', 'em', 'h3', 'h4', 'h5', 'h6', 'hr', 'i', 'input', 'kbd', 'li', 'ol', 'p', 'pre',
    's', 'span', 'strong', 'sub', 'sup', 'table', 'tbody', 'td', 'th', 'thead', 'tr', 'u', 'ul',
  ],
  ALLOWED_ATTR: ['href', 'title', 'start', 'align', 'class', 'type', 'checked', 'disabled'],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  ADD_URI_SAFE_ATTR: ['type', 'start', 'align'],
  ALLOW_ARIA_ATTR: false,
  ALLOW_DATA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
}

DOMPurify.addHook('afterSanitizeAttributes', node => {
  if (node.tagName === 'A' && node.hasAttribute('href')) {
    node.setAttribute('target', '_blank')
    node.setAttribute('rel', 'noopener noreferrer nofollow')
  }
  // Only the checkbox of a task list, which nobody can press.
  if (node.tagName === 'INPUT' && (node.getAttribute('type') !== 'checkbox' || !node.hasAttribute('disabled'))) node.remove()
  // Classes are for the colours of code; a model must not dress its text up as a part of the page.
  const classes = node.getAttribute?.('class')
  if (classes && !/^((language|hljs)[\w+#.-]*|[a-z]+_+|\s)+$/i.test(classes)) node.removeAttribute('class')
})

/** A fragment of what may be shown. */
export function safeFragment(html) {
  return DOMPurify.sanitize(html, RULES)
}
