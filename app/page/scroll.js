// Keeping the end in sight for those who read it, and leaving alone who has scrolled up.

const NEAR = 8 // pixels

export class Follower {
  #following = true
  #top = 0

  /** `scroller` scrolls; `button` leads back to the end and shows only away from it. */
  constructor(scroller, button) {
    this.scroller = scroller
    this.button = button
    scroller.addEventListener('scroll', () => this.#scrolled(), {passive: true})
    button.addEventListener('click', () => this.toEnd())
    // Pictures of code, an opened fold or a turned phone change the height without new text.
    new ResizeObserver(() => this.grown()).observe(scroller)
  }

  /** Go to the end, and stay with it. */
  toEnd() {
    this.#following = true
    this.grown()
  }

  /** The content may be longer now. */
  grown() {
    if (this.#following) this.scroller.scrollTop = this.scroller.scrollHeight
    this.#mark()
  }

  #left() {
    return this.scroller.scrollHeight - this.scroller.clientHeight - this.scroller.scrollTop
  }

  #scrolled() {
    const top = this.scroller.scrollTop
    if (this.#left() <= NEAR) this.#following = true
    else if (top < this.#top) this.#following = false
    this.#top = top
    this.#mark()
  }

  #mark() {
    this.button.hidden = this.#following || this.#left() <= NEAR
  }
}
