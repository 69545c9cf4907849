// The messages that are shown: one view for each, kept while its message stays on the path.

import {copyText, el} from './dom.js'
import {t} from './i18n.js'
import {AnswerView, QuestionView} from './messages.js'

const EXAMPLES = ['example1', 'example2', 'example3', 'example4']

export class Thread {
  #views = new Map()

  /** `actions`: `show(id)`, `edit(message, text)`, `regenerate(message)`, `example(text)`, `grown()`. */
  constructor(host, actions) {
    this.host = host
    this.actions = actions
    host.addEventListener('click', event => this.#copyCode(event.target))
  }

  /** Show a path of a tree of messages; `busy`: an answer is being written. */
  show(tree, path, busy) {
    if (path.length === 0) return this.#empty()
    const views = new Map()
    for (const message of path) {
      const view = this.#views.get(message.id)
        ?? (message.role === 'assistant' ? new AnswerView(this.actions) : new QuestionView(this.actions))
      view.set(message, tree.versions(message.id), busy)
      views.set(message.id, view)
    }
    const nodes = [...views.values()].map(view => view.node)
    for (const node of [...this.host.children]) if (!nodes.includes(node)) node.remove()
    // What stands at its place already is not moved: that would take the focus and the selection away.
    nodes.forEach((node, at) => { if (this.host.children[at] !== node) this.host.insertBefore(node, this.host.children[at] ?? null) })
    this.#views = views
    this.actions.grown()
  }

  /** Forget all views. */
  clear() {
    this.#views.clear()
    this.host.replaceChildren()
  }

  view(id) { return this.#views.get(id) }

  /** A message has got its id. */
  rename(from, to) {
    const view = this.#views.get(from)
    if (!view) return
    this.#views.delete(from)
    this.#views.set(to, view)
  }

  /** Say instead of messages that there are none to show. */
  say(words) {
    this.clear()
    this.host.append(el('p', {class: 'nothing', text: words}))
  }

  #empty() {
    this.clear()
    this.host.append(el('div', {class: 'welcome'},
      el('h2', {text: t('hello')}),
      el('p', {text: t('helloMore')}),
      el('div', {class: 'examples'}, ...EXAMPLES.map(key =>
        el('button', {type: 'button', class: 'example', onclick: () => this.actions.example(t(key)), text: t(key)})))))
  }

  async #copyCode(target) {
    if (!target.matches?.('.copy-code')) return
    await copyText(target.closest('.code').querySelector('code').textContent)
    target.textContent = t('copied')
    setTimeout(() => { target.textContent = t('copy') }, 1500)
  }
}
