// The client against the real service, by way of a proxy that breaks connections; `test_client.py` starts them all.
// CONTROL takes commands for the proxy and the model server, and counts what the model was asked.

import assert from 'node:assert/strict'
import test from 'node:test'
import {connect, ParleyError} from '../../app/page/client.js'

const {SERVICE, PROXY, BUFFERING, CONTROL} = process.env
const TEXT = 'Größe: 你好 👋🏽 one two three\n\nfour\n'.repeat(3)
const QUICK = {retryMs: 20, silenceMs: 5000}

/** What a browser has and Node has not: a cookie jar. */
function browser() {
  let cookie = ''
  return async (url, options = {}) => {
    const reply = await fetch(url, {...options, headers: {...options.headers, ...(cookie ? {cookie} : {})}})
    cookie = reply.headers.get('set-cookie')?.split(';')[0] ?? cookie
    return reply
  }
}
const parley = (base = PROXY, options = {}) => connect({base, fetch: browser(), ...QUICK, ...options})
const control = async (what, body = {}) => (await fetch(`${CONTROL}/${what}`, {method: 'POST', body: JSON.stringify(body)})).json()
const asked = () => control('asked')

/** Read to the end, and hold that every event came once, in order, with the ids that its length asks for. */
async function read(answer, each = async () => {}) {
  const events = []
  let cursor = 0
  let text = ''
  for await (const event of answer) {
    const length = event.type === 'text' || event.type === 'reasoning' ? [...event.text].length : 1
    assert.equal(Number(event.cursor), cursor + length, JSON.stringify(event))
    cursor += length
    if (event.type === 'text') text += event.text
    events.push(event)
    await each(event)
  }
  assert.equal(answer.text, text)
  assert.equal(events[0].type, 'start')
  assert.equal(events.at(-1).type, 'end')
  assert.equal(events.filter(({type}) => type === 'start' || type === 'end').length, 2)
  return events
}

test.beforeEach(() => control('reset'))

test('an answer comes event by event, with exact cursors and text', async () => {
  await control('reply', {pieces: ['Hel', 'lo'], reasoning: ['Hm']})
  const answer = parley().send('Hi')
  const events = await read(answer)
  const [{conversation, message, reply_to: question}] = events
  assert.deepEqual([answer.id, answer.conversation, answer.replyTo], [message, conversation, question])
  assert.deepEqual([answer.text, answer.reasoning, answer.status], ['Hello', 'Hm', 'completed'])
  assert.equal(events.at(-1).finish_reason, 'stop')
  const final = await answer.message
  assert.deepEqual([final.id, final.content, final.status], [message, 'Hello', 'completed'])
  assert.equal(await asked(), 1)
})

test('Node, which keeps no cookies, stays the same visitor', async () => {
  await control('reply', {pieces: ['Hello']})
  await control('reply', {pieces: ['Hello again']})
  const client = connect({base: PROXY, ...QUICK})
  const answer = client.send('Hi')
  assert.equal((await answer.message).content, 'Hello')
  assert.equal((await client.send('Hi again', {conversation: answer.conversation}).message).content, 'Hello again')
  assert.deepEqual((await client.conversations()).conversations.map(({id}) => id), [answer.conversation])
  await assert.rejects(connect({base: PROXY}).conversation(answer.conversation), {status: 404})
})

test('whoever awaits the message need not iterate', async () => {
  await control('reply', {pieces: ['Hello']})
  assert.equal((await parley().send('Hi').message).content, 'Hello')
})

test('a connection that is cut at any of many places loses and repeats nothing, and asks once', async () => {
  for (let after = 40; after < 1700; after += 83) {
    await control('reset')
    await control('reply', {pieces: TEXT.match(/[^]{1,7}/gu)})
    await control('proxy', {cut_after: after, cuts: 3})
    const answer = parley().send('Hi')
    await read(answer)
    assert.equal(answer.text, TEXT, `cut after ${after}`)
    assert.equal(await asked(), 1, `cut after ${after}`)
  }
})

test('a connection that is cut in mid-answer is taken up while the model still writes', async () => {
  await control('reply', {pieces: ['one ', 'two ', 'three'], gate: true})
  await control('release', {steps: 1})
  const answer = parley().send('Hi')
  await read(answer, async event => {
    if (event.text === 'one ') {
      await control('cut')
      await control('open')
    }
  })
  assert.deepEqual([answer.text, await asked()], ['one two three', 1])
})

test('a reply that is lost before its first byte is asked for again with the same key, and the model once', async () => {
  await control('reply', {pieces: ['Hello']})
  const client = parley()
  await client.conversations()
  await control('proxy', {cut_after: 0, cuts: 2})
  const answer = client.send('Hi')
  await read(answer)
  assert.deepEqual([answer.text, await asked()], ['Hello', 1])
  assert.equal((await client.conversations()).conversations.length, 1)
})

test('a connection that falls silent is given up and resumed', async () => {
  await control('reply', {pieces: ['one ', 'two'], gate: true})
  await control('release', {steps: 1})
  const answer = parley(PROXY, {silenceMs: 300}).send('Hi')
  await read(answer, async event => {
    if (event.text === 'one ') {
      await control('stall')
      await control('open')
    }
  })
  assert.deepEqual([answer.text, await asked()], ['one two', 1])
})

test('signs of life count: who thinks for longer than the patience is waited for, over many connections', async () => {
  await control('reply', {pieces: ['one'], gate: true})
  const answer = parley(PROXY, {patienceMs: 1500}).send('Think')
  let cuts = 0
  let cutting
  try {
    await read(answer, async event => {
      if (event.type !== 'start') return
      cutting = setInterval(() => control(cuts++ < 10 ? 'cut' : 'open'), 400)
    })
  } finally {
    clearInterval(cutting)
    await control('open')
  }
  assert.equal(answer.text, 'one')
})

test('an answer is stopped, also before its first event is known', async () => {
  await control('reply', {pieces: ['one '], unfinished: true})
  const early = parley().send('Hi')
  assert.equal((await early.stop()).status, 'stopped')
  await read(early)
  assert.equal(early.status, 'stopped')
})

test('a signal ends the reading with its reason, and the answer goes on', async () => {
  await control('reply', {pieces: ['one ', 'two'], gate: true})
  await control('release', {steps: 1})
  const client = parley()
  const leaving = new AbortController()
  const reason = new Error('the user has gone elsewhere')
  const answer = client.send('Hi', {signal: leaving.signal})
  await assert.rejects(read(answer, async event => { if (event.type === 'text') leaving.abort(reason) }), reason)
  await assert.rejects(answer.message, reason)
  await control('open')
  const again = client.resume(answer.id, {after: answer.cursor})
  assert.equal((await again.message).content, 'one two')
  assert.equal(again.text, 'two')
})

test('an answer is read again from its start, from a cursor, and after its end', async () => {
  await control('reply', {pieces: ['Hello']})
  const client = parley()
  const answer = client.send('Hi')
  await read(answer)
  const whole = client.resume(answer.id)
  await read(whole)
  assert.equal(whole.text, 'Hello')
  const rest = client.resume(answer.id, {after: '3'})
  await rest.message
  assert.equal(rest.text, 'llo')
  const nothing = []
  for await (const event of client.resume(answer.id, {after: answer.cursor})) nothing.push([event.type, event.status])
  assert.deepEqual(nothing, [['end', 'completed']])
})

test('problems are told, not tried again', async () => {
  const client = parley(SERVICE)
  const unknown = `msg_${'0'.repeat(32)}_2`
  const problem = (status, code) => error => {
    assert.ok(error instanceof ParleyError)
    assert.deepEqual([error.status, error.code, error.retryable], [status, code, false])
    assert.ok(error.detail && error.requestId)
    return true
  }
  await assert.rejects(client.resume(unknown).message, problem(404, 'not_found'))
  await assert.rejects(read(client.send('Hi', {model: 'no-such'})), problem(422, 'unknown_model'))
  await control('reply', {pieces: ['one '], unfinished: true})
  const running = client.send('Hi')
  await running[Symbol.asyncIterator]().next()
  const busy = client.send('And?', {conversation: running.conversation})
  await assert.rejects(busy.message, error => problem(409, 'conversation_busy')(error) && error.problem.message === running.id)
  await assert.rejects(busy.stop(), problem(409, 'conversation_busy'))
  await client.stop(running.id)
})

test('a service that is not there is told after some patience', async () => {
  await control('proxy', {cut_after: 0, cuts: 1e9})
  const error = await parley(PROXY, {askPatienceMs: 200}).send('Hi').message.catch(failure => failure)
  assert.deepEqual([error.code, error.status, error.retryable], ['connection_lost', 0, true])
})

test('conversations are made, listed by pages, changed and removed', async () => {
  const client = parley(SERVICE)
  const ids = []
  for (let i = 0; i < 52; i += 1) ids.push((await client.create({title: `No. ${i}`})).id)
  const first = await client.conversations()
  const second = await client.conversations(first.next)
  assert.deepEqual([first.conversations.length, second.conversations.length, second.next], [50, 2, null])
  assert.deepEqual([...first.conversations, ...second.conversations].map(({id}) => id).sort(), [...ids].sort())
  assert.equal((await client.rename(ids[0], 'Other')).title, 'Other')
  assert.deepEqual((await client.change(ids[0], {metadata: {a: 1}})).metadata, {a: 1})
  await client.remove(ids[0])
  await assert.rejects(client.conversation(ids[0]), {status: 404})
  assert.equal((await client.models()).data[0].id, 'model-a')
})

test('another answer to the same message is a sibling', async () => {
  await control('reply', {pieces: ['one']})
  await control('reply', {pieces: ['two']})
  const client = parley()
  const first = client.send('Hi')
  await read(first)
  const second = client.regenerate(first.id)
  await read(second)
  assert.deepEqual([second.text, second.replyTo, await asked()], ['two', first.replyTo, 2])
  assert.equal((await client.conversation(first.conversation)).messages.length, 3)
})

test('a service that is killed in mid-answer ends it as interrupted once another one is there', async () => {
  await control('reply', {pieces: ['one '], unfinished: true})
  const answer = parley().send('Hi')
  await read(answer, async event => { if (event.type === 'text') await control('restart') })
  assert.deepEqual([answer.text, answer.status, (await answer.message).content], ['one ', 'interrupted', 'one '])
})

test('a proxy that buffers is found out, and one that does not is not accused', async () => {
  const [direct, held] = await Promise.all([PROXY, BUFFERING].map(base => parley(base).diagnose()))
  assert.deepEqual([direct.buffered, direct.gapsMs.length], [false, 4])
  assert.deepEqual([held.buffered, held.gapsMs.length], [true, 4])
  assert.match(held.sentence, /buffering/)
})


/** A fetch that answers some requests itself, with what a proxy in between may say, and notes all that is asked. */
function answering(...replies) {
  const through = browser()
  const seen = []
  const fetch = (url, options) => {
    seen.push([options.method, new URL(url).pathname, options.headers['Idempotency-Key'] ?? options.headers['Last-Event-ID'] ?? null])
    const reply = options.method === 'POST' || url.endsWith('/events') ? replies.shift() : undefined
    return reply ? Promise.resolve(reply()) : through(url, options)
  }
  return {fetch, seen}
}
const busy = (status, seconds) => () => new Response('{"title": "Later", "code": "later"}', {status, headers: seconds === null ? {} : {'Retry-After': seconds}})

test('a short Retry-After is kept to, with the same key; the cookie is fetched once, before the first question', async () => {
  await control('reply', {pieces: ['Hello']})
  const {fetch, seen} = answering(busy(503, '1'), busy(425, null), () => new Response('<html>Sign in</html>', {headers: {'Content-Type': 'text/html'}}))
  const client = parley(SERVICE, {fetch})
  const began = Date.now()
  const answer = client.send('Hi')
  await read(answer)
  assert.ok(Date.now() - began >= 990)
  await read(client.send('And?', {conversation: answer.conversation}))
  assert.deepEqual(seen.map(([method, path]) => `${method} ${path}`), ['GET /conversations', ...Array(5).fill('POST /messages')])
  assert.equal(new Set(seen.slice(1, 5).map(([, , key]) => key)).size, 1)
  assert.notEqual(seen[5][2], seen[1][2])
  assert.equal(await asked(), 2)
})

test('a long Retry-After, a limit without one and a full store are told at once', async () => {
  for (const [status, seconds] of [[503, '3600'], [429, null], [429, '60'], [507, null]]) {
    const {fetch, seen} = answering(busy(status, seconds))
    const error = await parley(SERVICE, {fetch}).send('Hi').message.catch(failure => failure)
    assert.deepEqual([error.status, error.retryable, error.retryAfterMs], [status, true, seconds && Number(seconds) * 1000])
    assert.equal(seen.length, 2)
  }
  assert.equal(await asked(), 0)
})

test('headers are asked for anew with each request, and a token needs no cookie first', async () => {
  await control('reply', {pieces: ['Hello']})
  let number = 0
  const sent = []
  const fetch = (url, options) => { sent.push([options.method, options.headers.Authorization]); return globalThis.fetch(url, options) }
  const client = connect({base: SERVICE, fetch, headers: async () => ({Authorization: `Bearer ${number += 1}`})})
  await read(client.send('Hi'))
  assert.deepEqual(sent.map(([method]) => method), ['POST'])
  await client.models()
  assert.ok(sent[1][1] !== sent[0][1])
})

test('a tab that wakes and a network that returns take the answer up without waiting', async () => {
  await control('reply', {pieces: ['one ', 'two'], gate: true})
  await control('release', {steps: 1})
  const page = new EventTarget()
  Object.assign(globalThis, {
    document: Object.assign(page, {visibilityState: 'visible'}),
    addEventListener: page.addEventListener.bind(page),
    removeEventListener: page.removeEventListener.bind(page),
  })
  let waking
  try {
    const answer = parley(PROXY, {silenceMs: 3_600_000, retryMs: 3_600_000}).send('Hi')
    await read(answer, async event => {
      if (event.text === 'one ') {
        await control('stall')
        await control('open')
        page.dispatchEvent(new Event('online')) // gives up the connection that says nothing any more
        waking = setInterval(() => page.dispatchEvent(new Event('visibilitychange')), 20) // ends the wait before the next try
      }
    })
    assert.deepEqual([answer.text, await asked()], ['one two', 1])
  } finally {
    clearInterval(waking)
    for (const name of ['document', 'addEventListener', 'removeEventListener']) delete globalThis[name]
  }
})
