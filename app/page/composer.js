// Where one writes: a box that grows, and one button that sends, or stops the answer that is being written.

import {composing, icon} from './dom.js'
import {t} from './i18n.js'

export class Composer {
  #answering = false

  /** `send(text)` and `stop()` are what the button and the keys do; nothing is sent before the promise `ready`. */
  constructor(form, {ready, send, stop}) {
    this.box = form.querySelector('textarea')
    this.button = form.querySelector('button')
    this.ready = ready
    this.send = send
    this.stop = stop
    form.addEventListener('submit', event => {
      event.preventDefault()
      if (this.#answering) this.stop()
      else this.#submit()
    })
    this.box.addEventListener('input', () => this.#fit())
    this.box.addEventListener('keydown', event => {
      // Enter also ends the choice of a character in an input method: that one is not ours.
      if (event.key !== 'Enter' || event.shiftKey || composing(event)) return
      event.preventDefault()
      if (!this.#answering) this.#submit()
    })
    this.answering = false
  }

  /** Is an answer being written? Then the button stops it. */
  set answering(value) {
    this.#answering = value
    this.button.classList.toggle('stop', value)
    this.button.setAttribute('aria-label', value ? t('stop') : t('send'))
    this.button.title = value ? t('stop') : t('send')
    this.button.replaceChildren(icon(value ? 'stop' : 'send'))
    this.#fit()
  }

  /** Put a text into the box. */
  fill(text) {
    this.box.value = text
    this.#fit()
    this.box.focus()
  }

  /** Put a text that was not sent back, before what has been written since. */
  giveBack(text) {
    this.box.value = [text, this.box.value].filter(Boolean).join('\n\n')
    this.#fit()
  }

  focus() { this.box.focus() }

  async #submit() {
    await this.ready
    const text = this.box.value.trim()
    if (!text || this.#answering) return
    this.box.value = ''
    this.#fit()
    this.send(text)
  }

  #fit() {
    this.box.style.height = 'auto'
    this.box.style.height = `${this.box.scrollHeight}px`
    this.button.disabled = !this.#answering && this.box.value.trim() === ''
  }
}
