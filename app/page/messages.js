// What one message looks like: a question that can be edited, an answer that may still be written.

import {composing, copyText, el, icon, iconButton} from './dom.js'
import {language, t} from './i18n.js'
import {MarkdownStream} from './markdown.js'
import {textOf} from './tree.js'

const number = new Intl.NumberFormat(language)

/** Arrows between the versions of a message, where it has several. */
function arrows(view, actions) {
  const {versions, message} = view
  if (versions.length < 2) return null
  const at = versions.indexOf(message.id)
  const to = (step, name, label) => iconButton(name, label, () => actions.show(versions[at + step], step), {
    disabled: view.busy || versions[at + step] === undefined, 'data-step': step})
  return el('span', {class: 'versions', role: 'group', 'aria-label': t('version', {n: at + 1, all: versions.length})},
    to(-1, 'left', t('previous')),
    el('span', {'aria-hidden': 'true', text: `${at + 1}/${versions.length}`}),
    to(1, 'right', t('next')))
}

function copyButton(text) {
  const button = iconButton('copy', t('copy'), async () => {
    await copyText(text())
    button.replaceChildren(icon('check'))
    button.setAttribute('aria-label', t('copied'))
    setTimeout(() => {
      button.replaceChildren(icon('copy'))
      button.setAttribute('aria-label', t('copy'))
    }, 1500)
  })
  return button
}

// So a screen reader's user can jump from message to message.
const heading = text => el('h2', {class: 'visually-hidden', text})

/** A question of the user's. */
export class QuestionView {
  constructor(actions) {
    this.actions = actions
    this.body = el('div', {class: 'bubble', dir: 'auto'})
    this.tools = el('div', {class: 'tools'})
    this.node = el('article', {class: 'message question', 'aria-label': t('you')}, heading(t('you')), this.body, this.tools)
  }

  set(message, versions, busy) {
    Object.assign(this, {message, versions, busy})
    if (this.editing) return
    this.node.dataset.id = message.id
    const text = textOf(message, t('image'))
    if (message.role === 'tool') {
      this.node.classList.add('tool')
      this.body.textContent = `${t('toolResult')}: ${message.tool_results?.map(r => r.content).join('\n') ?? text}`
      return
    }
    if (this.body.textContent !== text) this.body.textContent = text
    renew(this, [message.id, versions, busy], () => [
      arrows(this, this.actions),
      copyButton(() => textOf(this.message, t('image'))),
      iconButton('edit', t('edit'), () => this.#edit(), {class: 'icon-button edit', disabled: busy})])
  }

  #edit() {
    this.editing = true
    const text = textOf(this.message, t('image'))
    const area = el('textarea', {class: 'edit-area', 'aria-label': t('yourMessage'), dir: 'auto', rows: '3'})
    area.value = text
    const done = () => {
      this.editing = false
      form.replaceWith(this.body)
      this.tools.hidden = false
      this.set(this.message, this.versions, this.busy)
      this.tools.querySelector('.edit')?.focus()
    }
    const send = () => {
      const value = area.value.trim()
      if (!value || this.busy) return
      done()
      if (value !== text.trim()) this.actions.edit(this.message, value)
    }
    const form = el('form', {class: 'edit-form', onsubmit: event => { event.preventDefault(); send() }}, area,
      el('div', {class: 'edit-buttons'},
        el('button', {type: 'button', class: 'button', onclick: done, text: t('cancel')}),
        el('button', {type: 'submit', class: 'button primary', text: t('sendEdit')})))
    area.addEventListener('keydown', event => {
      if (composing(event)) return
      if (event.key === 'Escape') done()
      if (event.key === 'Enter' && !event.shiftKey) { event.preventDefault(); send() }
    })
    this.body.replaceWith(form)
    this.tools.hidden = true
    area.focus()
    area.setSelectionRange(area.value.length, area.value.length)
  }
}

/** An answer: set from a stored message, or written from the events of a stream. */
export class AnswerView {
  #stream = null
  #waiting = ''
  #thought = ''
  #frame = 0

  constructor(actions) {
    this.actions = actions
    this.notices = el('div', {class: 'notices'})
    this.thought = el('div', {class: 'thought', dir: 'auto'})
    this.thoughtTitle = el('summary', {text: t('reasoning')})
    this.reasoning = el('details', {class: 'reasoning', hidden: true}, this.thoughtTitle, this.thought)
    this.body = el('div', {class: 'markdown'})
    this.calls = el('div', {class: 'calls'})
    this.problem = el('div', {class: 'problem', role: 'alert', hidden: true})
    this.tools = el('div', {class: 'tools'})
    this.node = el('article', {class: 'message answer', 'aria-label': t('answer')},
      heading(t('answer')), this.notices, this.reasoning, this.body, this.calls, this.problem, this.tools)
  }

  /** Show a state of the message; its text is rendered where it is not what is shown already. */
  set(message, versions, busy) {
    Object.assign(this, {message, versions, busy})
    this.node.dataset.id = message.id
    const writing = message.status === 'streaming'
    this.node.classList.toggle('writing', writing)
    this.node.setAttribute('aria-busy', String(writing))
    if (!writing) {
      this.flush()
      if (this.#stream?.source !== message.content) {
        this.begin()
        this.#push(message.content ?? '', message.reasoning ?? '')
      }
      this.#stream.finish()
      this.thoughtTitle.textContent = t('reasoning')
      if (message.left_out && !this.notices.hasChildNodes()) this.notice({code: 'context_trimmed', left_out: message.left_out})
      if (!this.calls.hasChildNodes()) for (const call of message.tool_calls ?? []) this.call(call)
    }
    this.#problem(message)
    const done = !writing && !message.pending
    renew(this, [done, message.id, versions, busy, message.status, message.model, message.usage], () => (done ? [
      arrows(this, this.actions),
      copyButton(() => this.message.content ?? ''),
      iconButton('again', t('regenerate'), () => this.actions.regenerate(this.message), {
        class: 'icon-button regenerate', disabled: busy}),
      this.#about(message)] : []))
  }

  /** The stream begins, or begins anew: forget what was shown. */
  begin() {
    this.body.replaceChildren()
    this.thought.replaceChildren(this.thoughtText = document.createTextNode(''))
    this.notices.replaceChildren()
    this.calls.replaceChildren()
    this.#stream = new MarkdownStream(this.body)
    this.#waiting = this.#thought = ''
  }

  /** Take text of the answer or of its reasoning; it is shown with the screen's next frame. */
  write(text, reasoning = '') {
    this.#waiting += text
    this.#thought += reasoning
    if (reasoning) this.thoughtTitle.textContent = t('reasoningNow')
    if (text) this.thoughtTitle.textContent = t('reasoning')
    // A tab in the background gets no frames; there, the text waits until it is looked at or complete.
    this.#frame ||= requestAnimationFrame(() => this.flush())
  }

  /** Show what waits. */
  flush() {
    if (this.#frame) cancelAnimationFrame(this.#frame)
    this.#frame = 0
    if (!this.#waiting && !this.#thought) return
    const [text, thought] = [this.#waiting, this.#thought]
    this.#waiting = this.#thought = ''
    this.#push(text, thought)
    this.actions.grown()
  }

  /** Say discreetly what went on before the first token. */
  notice(notice) {
    const key = {retrying: 'noticeRetrying', model_changed: 'noticeModel', context_trimmed: 'noticeTrimmed'}[notice.code]
    if (key) this.notices.append(el('p', {text: t(key, notice), 'data-code': notice.code}))
    this.actions.grown()
  }

  /** Show that a tool is called. */
  call(call) {
    this.calls.append(el('details', {}, el('summary', {text: t('toolCall', call)}), el('pre', {tabindex: '0', text: call.arguments})))
  }

  /** Say in words what went wrong, with a button that `again` answers; null takes it away. */
  say(words, again) {
    this.again = again
    if (this.said === words) return // a button that is being pressed stays
    this.said = words
    this.problem.hidden = !words
    this.problem.replaceChildren()
    if (!words) return
    this.problem.append(el('p', {text: words}))
    if (again) this.problem.append(el('button', {type: 'button', class: 'button try-again', onclick: () => this.again(), text: t('tryAgain')}))
  }

  #push(text, thought) {
    if (thought) {
      this.reasoning.hidden = false
      this.thoughtText.appendData(thought)
    }
    if (text) this.#stream.push(text)
  }

  #problem(message) {
    if (message.pending) return
    const again = () => this.actions.regenerate(message)
    if (message.status === 'failed') this.say(`${t('failed')} ${message.error?.message ?? ''}`, message.error?.retryable === false ? null : again)
    else if (message.status === 'interrupted') this.say(t('interrupted'), again)
    else if (message.status === 'completed' && message.finish_reason === 'length') this.say(t('length'))
    else if (message.status === 'completed' && message.finish_reason === 'content_filter') this.say(t('filtered'))
    else this.say(null)
  }

  #about(message) {
    const usage = message.usage
    const words = [message.status === 'stopped' ? t('stopped') : null, message.model,
      usage ? t('tokens', {n: number.format(usage.total_tokens)}) : null]
    return el('span', {class: 'about', title: usage ? t('tokensMore', {
      prompt: number.format(usage.prompt_tokens), completion: number.format(usage.completion_tokens)}) : null,
    text: words.filter(Boolean).join(' · ')})
  }
}

/**
 * Make a view's row of buttons anew where what they show has changed: a click that began on one that goes would be lost.
 * The keyboard's focus stays at the one in the same role.
 */
function renew(view, state, make) {
  const key = JSON.stringify(state)
  if (view.shown === key) return
  view.shown = key
  const row = view.tools
  const focused = row.contains(document.activeElement) ? document.activeElement : null
  const same = focused?.dataset.step ? `[data-step="${focused.dataset.step}"]` : null
  row.replaceChildren(...make().filter(Boolean))
  if (!focused) return
  const wanted = same ? row.querySelector(`${same}:not(:disabled)`) ?? row.querySelector('[data-step]:not(:disabled)') : null
  ;(wanted ?? row.querySelector(`.${focused.className.split(' ').at(-1)}:not(:disabled)`))?.focus()
}
