// The conversation that is open: sends, follows the answer that is being written, and moves between branches.

import {problemWords} from './api.js'
import {keepingFocus} from './dom.js'
import {t} from './i18n.js'
import {Tree} from './tree.js'

const QUESTION = 'pending-question'
const ANSWER = 'pending-answer'
// `start` is sent before the model is asked. Where it comes late, and the end at once after it, somebody held it back.
const HELD_BACK_MS = 1500
const AT_ONCE_MS = 250

export class Chat {
  id = null
  #tree = new Tree()
  #leaf = null
  #turn = null // the answer that is followed: {stream, answer, abort}
  #loaded = false // are the conversation's messages here?
  #changes = 0 // made in this tab: what was asked for before one of them is older
  #unsent = new Map() // conversation -> the text of what was left there while it was on its way, and did not arrive

  /** `parts`: the api, and what shows: thread, composer, status(words), hint(words), opened(id), changed(id), buffered(). */
  constructor(parts) {
    Object.assign(this, parts)
  }

  get busy() { return this.#turn !== null }
  get loaded() { return this.#loaded }

  /** Open a conversation, or a new one (null). */
  async open(id) {
    this.#leave()
    this.id = id
    this.#tree = new Tree()
    this.#leaf = null
    this.#loaded = id === null
    this.#changes += 1
    this.thread.clear()
    this.composer.giveBack(this.#unsent.get(id) ?? '')
    this.#unsent.delete(id)
    if (id === null) this.#show()
    else await this.look()
  }

  /** See what is new in the open conversation, unless this tab itself is writing it. */
  async look() {
    if (this.id === null || this.busy) return
    const changes = this.#changes
    let body
    try {
      body = await this.api.conversation(this.id)
    } catch (error) {
      if (this.#changes !== changes || this.#tree.get(ANSWER)) return // what failed stays, and can be copied
      if (error.status === 404) this.thread.say(t('lost'))
      else if (this.#tree.size === 0) this.thread.say(problemWords(error))
      return
    }
    if (this.#changes === changes) this.#adopt(body)
  }

  /** Ask. `parent` is the message to follow (null: none); else it is the last one shown, or the last one there is. */
  send(text, parent) {
    if (this.busy) return
    this.#forget()
    if (parent === undefined && this.#loaded) parent = this.#leaf
    const again = () => this.send(text, parent)
    this.#tree.put({id: QUESTION, parent, role: 'user', content: text, status: 'completed', pending: true})
    this.#begin(QUESTION, signal => this.api.send(text, {conversation: this.id, parent, signal}), again, text)
  }

  /** Ask the same again: another answer beside this one. */
  regenerate(message) {
    if (this.busy) return
    this.#forget()
    const again = () => this.regenerate(message)
    this.#begin(message.parent, signal => this.api.regenerate(message.id, {signal}), again)
  }

  /** Ask something else in a message's place. */
  edit(message, text) { this.send(text, message.parent) }

  /** Stop the answer that is being written. */
  async stop() {
    try {
      await this.#turn?.stream?.stop()
    } catch (error) {
      this.hint(problemWords(error))
    }
  }

  /** Show another version of a message, with what came after it. */
  show(id, step) {
    this.#leaf = this.#tree.leaf(id)
    this.#show()
    const row = this.thread.view(id)?.tools
    ;(row?.querySelector(`[data-step="${step}"]:not(:disabled)`) ?? row?.querySelector('[data-step]:not(:disabled)'))?.focus()
  }

  #begin(parent, open, again, text = '') {
    this.#tree.put({id: ANSWER, parent, role: 'assistant', content: '', status: 'streaming', pending: true})
    this.#leaf = ANSWER
    const turn = this.#newTurn(ANSWER)
    this.#show()
    this.follower.toEnd()
    this.#follow(turn, open(turn.abort.signal), again, text)
  }

  #newTurn(answer) {
    const turn = {conversation: this.id, answer, stream: null, abort: new AbortController(), asked: performance.now(), started: 0}
    this.#turn = turn
    this.#changes += 1
    return turn
  }

  async #follow(turn, stream, again, text) {
    turn.stream = stream
    let failure = null
    try {
      for await (const event of stream) {
        if (this.#turn !== turn) return
        this.#take(turn, event)
      }
    } catch (error) {
      failure = error
    }
    if (this.#turn !== turn) {
      if (failure && turn.answer === ANSWER && text) this.#keep(turn.conversation, text)
      return
    }
    this.#turn = null
    if (failure) this.#failed(turn, failure, again, text)
    else this.#show()
    if (!failure && !this.#loaded) this.look()
  }

  #take(turn, event) {
    const view = this.thread.view(turn.answer)
    const message = this.#tree.get(turn.answer)
    switch (event.type) {
      case 'start': return this.#started(turn, event)
      case 'text':
        message.content += event.text
        return view.write(event.text)
      case 'reasoning':
        message.reasoning = (message.reasoning ?? '') + event.text
        return view.write('', event.text)
      case 'tool_call':
        message.tool_calls = [...(message.tool_calls ?? []), event]
        return view.call(event)
      case 'notice': return view.notice(event)
      case 'end': return this.#ended(turn, event)
    }
  }

  #started(turn, event) {
    turn.started = performance.now()
    if (turn.answer === ANSWER) {
      const question = this.#tree.get(QUESTION)
      const answer = this.#tree.get(ANSWER)
      this.#tree.remove(ANSWER)
      if (question) {
        this.#tree.remove(QUESTION)
        this.#tree.put({...question, id: event.reply_to, pending: false})
        this.thread.rename(QUESTION, event.reply_to)
      }
      this.#tree.put({...answer, id: event.message, parent: event.reply_to, model: event.model, pending: false})
      this.thread.rename(ANSWER, event.message)
      this.#leaf = turn.answer = event.message
      if (this.id === null) {
        this.id = event.conversation
        this.opened(this.id)
      }
      this.changed(this.id)
    }
    const message = this.#tree.get(turn.answer)
    Object.assign(message, {content: '', status: 'streaming'})
    delete message.reasoning
    delete message.tool_calls
    this.#show()
    this.thread.view(turn.answer).begin()
    this.status(t('answering'))
  }

  #ended(turn, event) {
    const message = this.#tree.get(turn.answer)
    Object.assign(message, {status: event.status, finish_reason: event.finish_reason, usage: event.usage, error: event.error})
    if (event.model) message.model = event.model
    this.status(t({completed: 'complete', stopped: 'stopped', interrupted: 'interrupted'}[event.status] ?? 'failed'))
    this.changed(this.id)
    const late = turn.started - turn.asked > HELD_BACK_MS && performance.now() - turn.started < AT_ONCE_MS
    if (late && message.content) this.buffered()
  }

  #failed(turn, error, again, text) {
    if (error.code === 'conversation_busy') { // another tab was faster: show that answer, and give the text back
      this.#forget()
      this.#show()
      if (text) this.composer.giveBack(text)
      this.status(t('busy'))
      this.look()
      return
    }
    const begun = turn.answer !== ANSWER
    if (!begun) this.#tree.get(ANSWER).status = 'failed'
    this.#show()
    this.thread.view(turn.answer)?.say(problemWords(error), begun ? () => this.open(this.id) : again)
  }

  /** What did not arrive waits in the box where it was written. */
  #keep(conversation, text) {
    if (conversation === this.id) this.composer.giveBack(text)
    else this.#unsent.set(conversation, [this.#unsent.get(conversation), text].filter(Boolean).join('\n\n'))
    this.hint(t('unsent'))
  }

  /** Take back what was never accepted: nothing can follow it. */
  #forget() {
    const first = this.#tree.get(QUESTION) ?? this.#tree.get(ANSWER)
    if (!first) return
    this.#changes += 1
    this.#tree.remove(ANSWER)
    this.#tree.remove(QUESTION)
    if (!this.#tree.get(this.#leaf)) this.#leaf = this.#tree.leaf(first.parent ?? null)
  }

  /** Let the answer go on without us. A message that is on its way is not held back. */
  #leave() {
    const turn = this.#turn
    this.#turn = null
    if (turn && turn.answer !== ANSWER) turn.abort.abort()
  }

  #adopt(body) {
    const pending = [this.#tree.get(QUESTION), this.#tree.get(ANSWER)].filter(Boolean)
    if (!this.#loaded && pending[0]) pending[0].parent = body.messages.at(-1)?.id
    this.#loaded = true
    this.#tree = new Tree([...body.messages, ...pending])
    if (body.active) this.#leaf = body.active
    else if (!this.#tree.get(this.#leaf)) this.#leaf = body.messages.at(-1)?.id ?? null
    else this.#leaf = this.#tree.leaf(this.#leaf)
    if (body.active) {
      const turn = this.#newTurn(body.active)
      this.#show()
      this.#follow(turn, this.api.resume(body.active, {signal: turn.abort.signal}))
    } else {
      this.#show()
    }
  }

  #show() {
    keepingFocus(() => {
      this.thread.show(this.#tree, this.#tree.path(this.#leaf), this.busy)
      this.composer.answering = this.busy
    }, this.composer)
  }
}
