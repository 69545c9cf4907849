// Markdown that is still being written, as HTML: what is closed is final, and only the last open block is rendered anew.
//
// So a token costs as much at the end of an answer as at its start. A block that grows long on its own is bounded too:
// a list closes its items one by one, code is appended as text and coloured when it ends, and a long paragraph or table
// takes new text as it is, until it ends or has grown by half.

import {codeBlock} from './code.js'
import {el} from './dom.js'
import {safeFragment} from './safe.js'
import {Marked} from './vendor/marked-18.2.1.js'

// An open block of up to so many characters is rendered anew with each token.
const SHORT = 1500
const GROWTH = 1.5
// What can end an open block. A list goes on after a blank line, if what follows belongs to it.
const ENDS = /\n[ \t]*\n|\n {0,3}(?:`{3}|~{3}|#{1,6} |>|[-*+] |\d+[.)] )/
const QUOTE_ENDS = /\n[ \t]*\n|\n {0,3}(?:`{3}|~{3}|#{1,6} |[-*+] |\d+[.)] )/
const LIST_ENDS = /\n(?:[-*+]|\d+[.)]) |\n[ \t]*\n\S/
const FENCE = /^( {0,3})(`{3,}|~{3,})([^\n`]*)\n/
// What may yet become the marker of a list's next item.
const MARKER = /^ {0,3}(?:\d{1,9}[.)]?|[-*+])[ \t]*$/
const HARMLESS = /^<\/?(?:br|sub|sup|kbd|b|i|u|s|em|strong|del)\s*\/?>$/i

const escaped = text => text.replace(/[&<>"']/g, c => `&#${c.charCodeAt(0)};`)

const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    // HTML in an answer is what the model talks about: it is shown as it stands.
    html({text, block}) {
      if (HARMLESS.test(text)) return text
      return block ? `<p>${escaped(text)}</p>` : escaped(text)
    },
    // An image would be a request to somebody else, so it is a link that one may follow.
    image({href, text}) {
      return `<a href="${escaped(href)}">${escaped(text || href)}</a>`
    },
    // Below the page's own headings.
    heading({tokens, depth}) {
      const level = Math.min(depth + 2, 6)
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`
    },
  },
})

export class MarkdownStream {
  /** Characters that were handed to the parser so far: what the rendering has cost. */
  parsed = 0
  #host
  #source = ''
  #cr = false // it ends in the first half of a line end
  #tail = '' // the source of the open block
  #lexed = 0 // how long it was when it was parsed last
  #kind = '' // what it is, in the parser's words
  #shown = [] // its nodes
  #list = null // the list element that has closed items already
  #raw = null // the text node that takes what is not parsed yet
  #code = null
  #plain = null // the text node that takes all, once the parser has given up
  #links = {}
  #levels = [] // of the headings that the next one is below
  #finished = false

  /** `host` is the element to fill. */
  constructor(host) {
    this.#host = host
  }

  /** The whole text so far. */
  get source() { return this.#source }

  /** Add some text. */
  push(text) {
    this.#source += text
    if (this.#plain) return this.#plain.appendData(text)
    const rest = this.#cr && text.startsWith('\n') ? text.slice(1) : text
    if (text) this.#cr = text.endsWith('\r')
    this.#orPlain(() => this.#feed(rest.replace(/\r\n?/g, '\n')))
  }

  /** No more text comes: close what is open. */
  finish() {
    if (this.#finished) return
    this.#finished = true
    if (!this.#plain) this.#orPlain(() => this.#end())
  }

  /** What is nested too deep overflows a parser that calls itself: then all is shown as it stands. */
  #orPlain(render) {
    try {
      render()
    } catch {
      this.#plain = document.createTextNode(this.#source)
      this.#host.replaceChildren(el('p', {class: 'plain', dir: 'auto'}, this.#plain))
    }
  }

  #end() {
    if (this.#code) {
      this.#closeCode()
    } else if (this.#tail) {
      this.#parse(true)
    }
    if (Object.keys(this.#links).length > 0) this.#again()
  }

  #feed(text) {
    while (text) {
      if (this.#code) {
        text = this.#feedCode(text)
        continue
      }
      const before = this.#tail.length
      this.#tail += text
      if (this.#mayWait(before)) {
        this.#append(text)
        return
      }
      text = this.#parse(false)
    }
  }

  /** Can the open block, which is long, take the new text without being parsed? */
  #mayWait(before) {
    if (this.#tail.length <= SHORT || this.#lexed === 0 || this.#tail.length > this.#lexed * GROWTH) return false
    const fresh = this.#tail.slice(Math.max(before - 8, 0))
    return !({list: LIST_ENDS, blockquote: QUOTE_ENDS}[this.#kind] ?? ENDS).test(fresh)
  }

  #append(text) {
    if (!this.#raw) {
      this.#raw = document.createTextNode('')
      const last = this.#shown.at(-1)
      const inside = last?.matches('p, li, h3, h4, h5, h6') ? last : [...(last?.querySelectorAll('p, li') ?? [])].at(-1)
      if (inside) {
        inside.append(this.#raw)
      } else {
        const plain = el('p', {dir: 'auto'}, this.#raw)
        this.#host.append(plain)
        this.#shown.push(plain)
      }
    }
    this.#raw.appendData(text)
  }

  /** Parse the open block; show what is closed for good, and the rest for now. Returns text that was not taken yet. */
  #parse(last) {
    this.parsed += this.#tail.length
    for (const node of this.#shown) node.remove()
    this.#shown = []
    this.#raw = null
    const lexer = new marked.Lexer(marked.defaults)
    Object.assign(lexer.tokens.links, this.#links)
    const tokens = lexer.lex(this.#tail)
    let open = tokens.length - 1
    while (open >= 0 && (tokens[open].type === 'space' || tokens[open].type === 'def')) open--
    if (last || open < 0) {
      if (last) for (const token of tokens) this.#close(token)
      if (last) this.#tail = ''
      this.#lexed = this.#tail.length
      return ''
    }
    if (MARKER.test(tokens[open].raw)) {
      const before = tokens.slice(0, open).findLastIndex(token => token.type !== 'space' && token.type !== 'def')
      if (tokens[before]?.type === 'list') open = before
    }
    let at = 0
    for (const token of tokens.slice(0, open)) {
      this.#close(token)
      at += token.raw.length
    }
    this.#tail = this.#tail.slice(at)
    const token = tokens[open]
    this.#kind = token.type
    if (token.type === 'code' && FENCE.test(this.#tail)) return this.#openCode()
    if (token.type === 'list') this.#showList(token)
    else {
      this.#list = null
      this.#show(this.#render([token]))
    }
    this.#lexed = this.#tail.length
    return ''
  }

  #close(token) {
    if (token.type === 'space') return
    if (token.type === 'def') {
      this.#links[token.tag] ??= {href: token.href, title: token.title}
      return
    }
    if (token.type === 'list' && this.#list) {
      this.#list.append(...this.#items(token, token.items).map(finished))
      this.#list = null
      return
    }
    this.#list = null
    if (token.type === 'code') {
      const block = codeBlock((token.lang ?? '').trim().split(/\s/)[0])
      block.code.textContent = token.text
      this.#host.append(block.node)
      block.colour()
    } else {
      this.#host.append(...this.#render([token], true).map(finished))
    }
  }

  /** All items but the last are closed; that one is the open block from now on. */
  #showList(token) {
    const done = token.items.slice(0, -1)
    if (done.length > 0 || this.#list) {
      if (!this.#list) {
        const [list] = this.#render([{...token, items: []}])
        this.#host.append(list)
        this.#list = list
      }
      this.#list.append(...this.#items(token, done).map(finished))
      this.#tail = this.#tail.slice(done.reduce((sum, item) => sum + item.raw.length, 0))
      const open = this.#items(token, token.items.slice(-1))
      this.#list.append(...open)
      this.#shown = open
    } else {
      this.#show(this.#render([token]))
    }
  }

  #items(token, items) {
    if (items.length === 0) return []
    return [...this.#render([{...token, items}])[0].children]
  }

  #show(nodes) {
    this.#host.append(...nodes)
    this.#shown = nodes
  }

  #render(tokens, final = false) {
    const fragment = safeFragment(marked.parser(tokens))
    this.#order(fragment, final)
    // Lists and quotations run as they begin, which what has a direction of its own would not count for.
    const directed = 'p:not(li *, blockquote *), h3, h4, h5, h6, blockquote, ul, ol, td, th'
    for (const node of fragment.querySelectorAll(directed)) node.dir = 'auto'
    for (const list of fragment.querySelectorAll('ul, ol')) {
      for (const node of [...list.childNodes]) if (node.nodeType === Node.TEXT_NODE) node.remove()
    }
    // Whether a list is loose shows only later: an item with one paragraph looks the same in both.
    for (const item of fragment.querySelectorAll('li')) {
      const paragraphs = item.querySelectorAll(':scope > p')
      if (paragraphs.length === 1) paragraphs[0].replaceWith(...paragraphs[0].childNodes)
      const end = item.lastChild
      if (end?.nodeType === Node.TEXT_NODE) end.data = end.data.trimEnd()
    }
    for (const box of fragment.querySelectorAll('input')) box.setAttribute('aria-label', box.checked ? '✓' : '☐')
    for (const table of fragment.querySelectorAll('table')) {
      const frame = el('div', {class: 'table', tabindex: '0'})
      table.replaceWith(frame)
      frame.append(table)
    }
    return [...fragment.children]
  }

  /** A model may begin with any level of heading; ours begin below the message's own, and leave none out. */
  #order(fragment, final) {
    const levels = [...this.#levels]
    for (const heading of fragment.querySelectorAll('h3, h4, h5, h6')) {
      const depth = Number(heading.tagName[1])
      while (levels.at(-1) >= depth) levels.pop()
      levels.push(depth)
      const fitting = document.createElement(`h${2 + levels.length}`)
      fitting.append(...heading.childNodes)
      heading.replaceWith(fitting)
    }
    if (final) this.#levels = levels
  }

  #openCode() {
    this.#list = null
    const [line, indent, fence, info] = FENCE.exec(this.#tail)
    const block = codeBlock(info.trim().split(/\s/)[0])
    const text = document.createTextNode('')
    block.code.append(text)
    this.#host.append(block.node)
    const end = new RegExp(`^ {0,3}${fence[0]}{${fence.length},}[ \\t]*$`)
    const start = new RegExp(`^ {0,3}${fence[0]}*[ \\t]*$`)
    this.#code = {...block, text, end, start, indent: indent.length, line: '', written: 0}
    const rest = this.#tail.slice(line.length)
    this.#tail = ''
    this.#lexed = 0
    return rest
  }

  /** Take text into the open block of code. Returns what comes after its end. */
  #feedCode(text) {
    const code = this.#code
    const lines = text.split('\n')
    let shown = ''
    for (const [number, piece] of lines.entries()) {
      code.line += piece
      const whole = number < lines.length - 1
      if (whole && code.end.test(code.line)) {
        code.text.appendData(shown)
        this.#closeCode()
        return lines.slice(number + 1).join('\n')
      }
      // What may yet become the closing fence is held back.
      if (whole || !code.start.test(code.line)) {
        const line = code.indent ? code.line.replace(new RegExp(`^ {0,${code.indent}}`), '') : code.line
        shown += line.slice(code.written) + (whole ? '\n' : '')
        code.written = whole ? 0 : line.length
        if (whole) code.line = ''
      }
    }
    code.text.appendData(shown)
    return ''
  }

  #closeCode() {
    const code = this.#code
    this.#code = null
    if (code.line && !code.end.test(code.line)) code.text.appendData(code.line.slice(code.written))
    code.text.data = code.text.data.replace(/\n$/, '')
    code.colour()
  }

  /** References may be defined after their use: so an answer which has any is rendered once more when it is complete. */
  #again() {
    this.#host.replaceChildren()
    this.#links = {}
    this.#levels = []
    this.#tail = this.#source.replace(/\r\n?/g, '\n')
    this.#list = null
    this.#shown = []
    this.#parse(true)
  }
}

/** Dress up the code within a block that is final. */
function finished(node) {
  const blocks = node.tagName === 'PRE' ? [node] : node.querySelectorAll('pre')
  let result = node
  for (const pre of blocks) {
    const language = /language-(\S+)/.exec(pre.firstElementChild?.className ?? '')?.[1] ?? ''
    const block = codeBlock(language)
    block.code.textContent = pre.textContent.replace(/\n$/, '')
    if (pre === node) result = block.node
    else pre.replaceWith(block.node)
    block.colour()
  }
  return result
}
