// Puts the page together.

import {api, problemWords, watch} from './api.js'
import {Chat} from './chat.js'
import {Composer} from './composer.js'
import {t, translate} from './i18n.js'
import {Follower} from './scroll.js'
import {Sidebar} from './sidebar.js'
import {tabs} from './tabs.js'
import {Thread} from './thread.js'

const $ = selector => document.querySelector(selector)
const NARROW = matchMedia('(max-width: 760px)')

translate(document)

const follower = new Follower($('#scroller'), $('#latest'))
let begin
const ready = new Promise(resolve => { begin = resolve })
const composer = new Composer($('#composer'), {ready, send: text => chat.send(text), stop: () => chat.stop()})
const thread = new Thread($('#thread'), {
  show: (id, step) => chat.show(id, step),
  edit: (message, text) => chat.edit(message, text),
  regenerate: message => chat.regenerate(message),
  example: text => composer.fill(text),
  grown: () => follower.grown(),
})
const sidebar = new Sidebar($('#sidebar'), api, {
  removed: id => {
    others.tell(id)
    list()
    if (id === chat.id) location.hash = ''
  },
  renamed: id => { others.tell(id); list() },
  failed: error => { hint(problemWords(error)); list() },
})
const chat = new Chat({
  api, thread, composer, follower,
  status: words => { $('#status').textContent = words },
  hint,
  opened: id => {
    history.replaceState(null, '', `#${id}`)
    sidebar.current = id
  },
  changed: id => { others.tell(id); list() },
  buffered: async () => {
    const finding = await api.diagnose().catch(() => null)
    if (finding?.buffered) hint(t('buffered'))
  },
})
const others = tabs({
  changed: id => { list(); if (id === chat.id) chat.look() },
  look: () => { list(); chat.look() },
})

/** Read the list anew. Returns whether this page may use the service. */
async function list() {
  try {
    await sidebar.load()
  } catch (error) {
    if (error.status === 401) return false
    // else the list that is there stays, and the next look will tell
  }
  sidebar.current = chat.id
  name()
  return true
}

function name() {
  const title = chat.id ? sidebar.title(chat.id) : null
  document.title = title ? `${title} · Parley` : 'Parley'
}

function hint(words) {
  $('#hint p').textContent = words
  $('#hint').hidden = false
}
$('#hint button').addEventListener('click', () => { $('#hint').hidden = true })

watch(reached => { $('#away').hidden = reached })
addEventListener('offline', () => { $('#away').hidden = false })

// The list is a drawer where there is no room beside the messages.
function drawer(open) {
  document.body.classList.toggle('drawer-open', open)
  $('#menu').setAttribute('aria-expanded', String(open))
  $('#sidebar').inert = NARROW.matches && !open
  $('#main').inert = NARROW.matches && open
  if (NARROW.matches) (open ? $('#sidebar .new-chat') : $('#menu')).focus({preventScroll: true})
}
$('#menu').addEventListener('click', () => drawer(true))
$('#close').addEventListener('click', () => drawer(false))
$('#shade').addEventListener('click', () => drawer(false))
document.addEventListener('keydown', event => {
  if (event.key === 'Escape' && document.body.classList.contains('drawer-open') && !$('dialog[open]')) drawer(false)
})
NARROW.addEventListener('change', () => drawer(false))
$('#sidebar').inert = NARROW.matches

async function open() {
  const id = /^#(conv_[0-9a-f]{32})$/.exec(location.hash)?.[1] ?? null
  if (document.body.classList.contains('drawer-open')) drawer(false)
  sidebar.current = id
  await chat.open(id)
  follower.toEnd()
  name()
  composer.focus()
}
addEventListener('hashchange', open)
// The link of what is open already leads nowhere new.
$('.conversations').addEventListener('click', event => {
  if (event.target.closest('a')?.hash !== location.hash) return
  if (chat.loaded || chat.busy) drawer(false)
  else open()
})
for (const link of document.querySelectorAll('.new-chat')) {
  link.addEventListener('click', event => {
    event.preventDefault()
    if (location.hash) history.pushState(null, '', location.pathname)
    open()
  })
}
addEventListener('popstate', () => { if (!location.hash && chat.id) open() })

if (await list()) { // it makes the owner's cookie, before anything else asks
  const opened = open()
  begin()
  await opened
} else {
  thread.say(t('forPrograms'))
  for (const node of document.querySelectorAll('.new-chat, #menu, .foot')) node.hidden = true
}
const models = await api.models().catch(() => null)
if (models?.data?.[0]?.owned_by?.startsWith('parley')) $('#demo').hidden = false
document.documentElement.dataset.ready = 'true'
