// Several tabs, and several devices, on the same conversations: tell the others, and look again.

const LOOK_AGAIN_MS = 20_000

/** `changed(id)`: another tab did something there; `look()`: it is time to see what other devices have done. */
export function tabs({changed, look}) {
  const channel = new BroadcastChannel('parley')
  channel.onmessage = event => changed(event.data)
  document.addEventListener('visibilitychange', () => { if (!document.hidden) look() })
  window.addEventListener('focus', look)
  window.addEventListener('online', look)
  setInterval(() => { if (!document.hidden) look() }, LOOK_AGAIN_MS)
  return {tell: id => channel.postMessage(id)}
}
