// A conversation's messages as a tree: each follows its parent, and what is shown is one path through it.

export class Tree {
  #messages = new Map()
  #children = new Map()

  constructor(messages = []) {
    for (const message of messages) this.put(message)
  }

  get size() { return this.#messages.size }
  get(id) { return this.#messages.get(id) }
  get all() { return [...this.#messages.values()] }

  /** Add a message, or put a newer state of it in its place. */
  put(message) {
    if (!this.#messages.has(message.id)) this.#siblings(message.parent).push(message.id)
    this.#messages.set(message.id, message)
  }

  remove(id) {
    const message = this.#messages.get(id)
    if (!message) return
    this.#messages.delete(id)
    const siblings = this.#siblings(message.parent)
    siblings.splice(siblings.indexOf(id), 1)
  }

  /** The ids of all versions of a message: what follows the same parent, oldest first. */
  versions(id) {
    const message = this.#messages.get(id)
    // A question and an answer that follow the same message are no versions of each other.
    return this.#siblings(message.parent).filter(other => this.#messages.get(other).role === message.role)
  }

  /** The messages from the first to this one. */
  path(id) {
    const path = []
    for (let at = this.#messages.get(id); at; at = this.#messages.get(at.parent)) path.unshift(at)
    return path
  }

  /** The id of the newest end that is reached through a message. */
  leaf(id) {
    for (;;) {
      const next = this.#siblings(id).at(-1)
      if (next === undefined) return id
      id = next
    }
  }

  #siblings(parent) {
    const key = parent ?? null
    if (!this.#children.has(key)) this.#children.set(key, [])
    return this.#children.get(key)
  }
}

/** A message's text; its content may be a list of parts. */
export function textOf(message, imageWord = 'image') {
  if (typeof message.content === 'string') return message.content
  return (message.content ?? []).map(part => (part.type === 'text' ? part.text : `[${imageWord}]`)).join('\n')
}
