// The list of conversations, newest first: open, rename, delete (after a question), and older ones on demand.

import {composing, el, iconButton} from './dom.js'
import {t} from './i18n.js'

export class Sidebar {
  #rows = []
  #next = null
  #current = null
  #editing = null
  #leaving = new Set() // what is being deleted is not listed any more

  /** `api` as in `api.js`; `removed(id)`, `renamed(id)` and `failed(error)` tell what was done here. */
  constructor(root, api, {removed, renamed, failed}) {
    this.root = root
    this.list = root.querySelector('.conversations')
    this.more = root.querySelector('.more')
    this.nothing = root.querySelector('.nothing')
    this.dialog = document.querySelector('#remove')
    this.api = api
    this.removed = removed
    this.renamed = renamed
    this.failed = failed
    this.more.addEventListener('click', () => this.#older())
  }

  /** The conversation that is open. */
  set current(id) {
    this.#current = id
    for (const link of this.list.querySelectorAll('a')) mark(link, link.hash.slice(1) === id)
  }

  title(id) { return this.#rows.find(row => row.id === id)?.title ?? null }

  /** Read the list anew. Older pages that were opened stay. */
  async load() {
    const page = await this.api.conversations()
    const fresh = new Set(page.conversations.map(row => row.id))
    const last = page.conversations.at(-1)
    const older = page.next && this.#rows.length > page.conversations.length
      ? this.#rows.filter(row => !fresh.has(row.id) && row.updated_at <= last.updated_at) : []
    if (older.length === 0) this.#next = page.next
    this.#rows = [...page.conversations, ...older].filter(row => !this.#leaving.has(row.id))
    this.#draw()
  }

  async #older() {
    let page
    try {
      page = await this.api.conversations(this.#next)
    } catch (error) {
      return this.failed(error)
    }
    const known = new Set(this.#rows.map(row => row.id))
    const first = page.conversations.find(row => !known.has(row.id))
    this.#rows.push(...page.conversations.filter(row => !known.has(row.id)))
    this.#next = page.next
    this.#draw()
    if (first) this.#link(first.id)?.focus()
  }

  #link(id) { return this.list.querySelector(`a[href="#${id}"]`) }

  #draw() {
    if (this.#editing) return
    const focused = this.list.contains(document.activeElement) ? document.activeElement : null
    const row = focused?.closest('li')?.dataset.id
    const role = focused?.dataset.role
    // A row that says the same stays the same element: a dialog gives the focus back to where it came from.
    const known = new Map([...this.list.children].map(node => [`${node.dataset.id} ${node.dataset.title}`, node]))
    const nodes = this.#rows.map(item => known.get(`${item.id} ${item.title}`) ?? this.#row(item))
    for (const node of [...this.list.children]) if (!nodes.includes(node)) node.remove()
    nodes.forEach((node, at) => { if (this.list.children[at] !== node) this.list.insertBefore(node, this.list.children[at] ?? null) })
    this.current = this.#current
    if (row && !this.list.contains(document.activeElement)) this.list.querySelector(`li[data-id="${row}"] [data-role="${role}"]`)?.focus()
    this.nothing.hidden = this.#rows.length > 0
    this.more.hidden = this.#next === null
  }

  #row(item) {
    const title = item.title ?? t('untitled')
    // The handlers find the item by its id, as the list may have been read anew.
    const link = el('a', {href: `#${item.id}`, dir: 'auto', 'data-role': 'open', text: title, title})
    mark(link, item.id === this.#current)
    return el('li', {'data-id': item.id, 'data-title': String(item.title)}, link,
      iconButton('edit', `${t('rename')}: ${title}`, event => this.#rename(this.#rows.find(other => other.id === item.id), event.currentTarget), {'data-role': 'rename'}),
      iconButton('remove', `${t('remove')}: ${title}`, () => this.#remove(this.#rows.find(other => other.id === item.id)), {'data-role': 'remove'}))
  }

  #rename(item, button) {
    const row = button.closest('li')
    const input = el('input', {type: 'text', 'aria-label': t('title'), maxlength: '200', dir: 'auto'})
    input.value = item.title ?? ''
    this.#editing = item.id
    const done = async (keep, byKey = false) => {
      if (this.#editing !== item.id) return
      this.#editing = null
      const title = input.value.trim()
      const renamed = keep && title && title !== item.title
      if (renamed) item.title = title
      this.#draw()
      // At once, and for the keyboard only: later, one may be writing elsewhere.
      if (byKey) this.list.querySelector(`li[data-id="${item.id}"] [data-role="rename"]`)?.focus()
      if (!renamed) return
      try {
        await this.api.rename(item.id, title)
      } catch (error) {
        return this.failed(error)
      }
      this.renamed(item.id)
    }
    input.addEventListener('keydown', event => {
      if (composing(event)) return
      if (event.key === 'Enter') { event.preventDefault(); done(true, true) }
      if (event.key === 'Escape') { event.stopPropagation(); done(false, true) }
    })
    input.addEventListener('blur', () => done(true))
    row.replaceChildren(input)
    row.dataset.title = '' // to be made anew
    row.dataset.id = ''
    input.focus()
    input.select()
  }

  #remove(item) {
    const dialog = this.dialog
    dialog.querySelector('p').textContent = t('removeMore', {title: item.title ?? t('untitled')})
    dialog.returnValue = ''
    dialog.onclose = async () => {
      if (dialog.returnValue !== 'remove') {
        this.list.querySelector(`li[data-id="${item.id}"] [data-role="remove"]`)?.focus() // the row may be a new one
        return
      }
      const at = this.#rows.indexOf(item)
      this.#leaving.add(item.id)
      this.#rows = this.#rows.filter(row => row.id !== item.id)
      this.#draw()
      const neighbour = this.#rows[Math.min(Math.max(at, 0), this.#rows.length - 1)]
      ;(neighbour ? this.#link(neighbour.id) : this.root.querySelector('.new-chat'))?.focus()
      try {
        await this.api.remove(item.id)
      } catch (error) {
        if (error.status !== 404) return this.failed(error)
      } finally {
        this.#leaving.delete(item.id)
      }
      this.removed(item.id)
    }
    dialog.showModal()
  }
}

function mark(link, current) {
  if (current) link.setAttribute('aria-current', 'page')
  else link.removeAttribute('aria-current')
}
