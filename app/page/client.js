// Parley's browser client: ask, read the answer as it is written, and never lose or repeat a word of it.
// One file without dependencies, for browsers, bundlers and Node 20. Its types are in `client.d.ts`.
//
//   import {connect} from '/client.js'
//   for await (const event of connect().send('Hello!')) if (event.type === 'text') show(event.text)

/** @typedef {import('./client.js').Options} Options */
/** @typedef {import('./client.js').AskOptions} AskOptions */
/** @typedef {import('./client.js').AnswerEvent} AnswerEvent */
/** @typedef {import('./client.js').Message} Message */

// Longer than this nobody waits because a server says so: the error is told instead.
const LONGEST_RETRY_AFTER_MS = 10_000
const LONGEST_DELAY_MS = 10_000
const PASSING = [408, 425, 429, 502, 503, 504]

/** What went wrong, as the service's problem document says it; `status` 0: no answer came at all. */
export class ParleyError extends Error {
  /** @param {any} problem  @param {number} [status]  @param {number | null} [retryAfterMs] */
  constructor(problem, status = 0, retryAfterMs = null) {
    super(problem.detail ?? problem.title ?? `HTTP ${status}`)
    this.name = 'ParleyError'
    this.status = status
    /** @type {string} */
    this.code = problem.code ?? (status ? 'http_error' : 'connection_lost')
    /** @type {string} */
    this.detail = this.message
    /** @type {string | null} */
    this.requestId = problem.request_id ?? null
    /** Can the same request succeed later? */
    this.retryable = status === 0 || status === 507 || PASSING.includes(status)
    this.retryAfterMs = retryAfterMs
    /** @type {any} All members of the problem document: `message` of `conversation_busy` is the running answer's id. */
    this.problem = problem
  }
}

/**
 * A parser of server-sent events, after https://html.spec.whatwg.org/multipage/server-sent-events.html
 * Bytes may be cut anywhere. Takes time linear in their number.
 */
export class EventParser {
  #decoder = new TextDecoder() // takes away a byte order mark, and keeps a character that is cut
  #rest = '' // of a line that has not ended; JavaScript joins strings lazily, so that adding is cheap
  #afterReturn = false
  /** @type {string[]} */
  #data = []
  #type = ''
  #id = ''
  /** The last event's id: what to send as `Last-Event-ID`. */
  lastEventId = ''
  /** @type {number | null} What `retry:` has asked for, in milliseconds. */
  retry = null

  /**
   * Return the events that some bytes complete.
   * @param {Uint8Array} bytes
   */
  push(bytes) {
    /** @type {{type: string, data: string, id: string}[]} */
    const events = []
    const text = this.#decoder.decode(bytes, {stream: true})
    if (text === '') return events
    let from = this.#afterReturn && text[0] === '\n' ? 1 : 0
    this.#afterReturn = text.endsWith('\r')
    const ends = /\r\n|\n|\r/g
    ends.lastIndex = from
    for (let end = ends.exec(text); end; end = ends.exec(text)) {
      const line = this.#rest + text.slice(from, end.index)
      this.#rest = ''
      from = ends.lastIndex
      if (line === '') this.#dispatch(events)
      else this.#field(line)
    }
    this.#rest += text.slice(from)
    return events
  }

  /** @param {string} line */
  #field(line) {
    const colon = line.indexOf(':')
    const name = colon < 0 ? line : line.slice(0, colon)
    const value = colon < 0 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1)
    if (name === 'data') this.#data.push(value)
    else if (name === 'event') this.#type = value
    else if (name === 'id' && !value.includes('\0')) this.#id = value
    else if (name === 'retry' && /^[0-9]+$/.test(value)) this.retry = Number(value)
  }

  /** @param {{type: string, data: string, id: string}[]} events */
  #dispatch(events) {
    this.lastEventId = this.#id
    if (this.#data.length) events.push({type: this.#type || 'message', data: this.#data.join('\n'), id: this.#id})
    this.#data = []
    this.#type = ''
  }
}

/**
 * An answer that is being read. Iterate it (once), or await `message`; reading begins by itself and heals itself.
 * @implements {AsyncIterable<AnswerEvent>}
 */
export class Answer {
  text = ''
  reasoning = ''
  /** @type {string | null} The answer's own id, its conversation's, and the message's that it replies to: with `start`. */
  id = null
  /** @type {string | null} */
  conversation = null
  /** @type {string | null} */
  replyTo = null
  /** @type {string | null} */
  model = null
  /** @type {import('./client.js').Status} */
  status = 'streaming'
  /** @type {string} What to resume after. */
  cursor = ''
  #api
  #open
  #left = new AbortController()
  /** @type {AnswerEvent[]} */
  #queue = []
  #wake = () => {}
  #over = false
  #heard = 0 // bytes, signs of life too
  /** @type {Promise<void>} */
  #done
  /** @type {Promise<Message> | null} */
  #message = null
  /** @type {Promise<string>} */
  #known

  /**
   * Use `send`, `resume` or `regenerate` instead.
   * @param {Api} api
   * @param {(signal: AbortSignal) => Promise<Response>} open asks; used until `start` has come
   * @param {{signal?: AbortSignal, id?: string, after?: string}} [options]
   */
  constructor(api, open, {signal, id, after = ''} = {}) {
    this.#api = api
    this.#open = open
    this.id = id ?? null
    this.cursor = after
    /** @type {(id: string) => void} */
    let known = () => {}
    /** @type {(error: unknown) => void} */
    let unknown = () => {}
    this.#known = new Promise((resolve, reject) => { known = resolve; unknown = reject })
    this.#known.catch(() => {}) // told by the iteration, or by `message`
    if (id) known(id)
    const leave = () => this.#left.abort(signal?.reason)
    if (signal?.aborted) leave()
    signal?.addEventListener('abort', leave)
    this.#done = this.#read(known).catch(error => {
      unknown(error)
      throw error
    }).finally(() => {
      signal?.removeEventListener('abort', leave)
      this.#over = true
      this.#wake()
    })
    this.#done.catch(() => {})
  }

  /** The final message, once it is final. Rejects with what has ended the reading. */
  get message() {
    this.#message ??= this.#done.then(() => this.#api.json('GET', `/messages/${this.id}`))
    return this.#message
  }

  /** Stop the answer itself (not only its reading), and return the final message. Waits until it has begun. */
  async stop() {
    return /** @type {Promise<Message>} */ (this.#api.json('POST', `/messages/${await this.#known}/stop`))
  }

  /** Leaving the loop ends the reading; the answer goes on, and `resume(id)` reads it. */
  async *[Symbol.asyncIterator]() {
    try {
      for (;;) {
        const event = this.#queue.shift()
        if (event) yield event
        else if (this.#over) return await this.#done
        else await new Promise(resolve => { this.#wake = () => resolve(undefined) })
        if (this.#left.signal.aborted) throw this.#left.signal.reason
      }
    } finally {
      this.#left.abort(new DOMException('The reader has left.', 'AbortError'))
    }
  }

  /** Read over as many connections as it takes. @param {(id: string) => void} known */
  async #read(known) {
    const {patienceMs, askPatienceMs, retryMs} = this.#api.options
    let failures = 0
    let base = retryMs
    let failing = 0 // since when; 0: not at all
    for (;;) {
      let error
      try {
        const before = this.#heard
        const parser = await this.#connection(known)
        if (this.status !== 'streaming') return
        base = parser?.retry ?? base
        if (this.#heard !== before) failures = failing = 0
        error = new ParleyError({detail: 'The connection to the service was lost.'})
      } catch (failure) {
        if (this.#left.signal.aborted) throw this.#left.signal.reason
        error = failure instanceof ParleyError ? failure : new ParleyError({detail: `No connection: ${failure}`})
      }
      if (!error.retryable || error.status === 507) throw error
      const asked = error.retryAfterMs
      if (asked !== null ? asked > LONGEST_RETRY_AFTER_MS : error.status === 429) throw error
      const delay = (asked ?? 0) + Math.random() * Math.min(LONGEST_DELAY_MS, base * 2 ** failures)
      failures += 1
      failing ||= Date.now()
      if (Date.now() + delay - failing > (this.id === null ? askPatienceMs : patienceMs)) throw error
      await pause(delay, this.#left.signal)
    }
  }

  /** Read one connection to its end. Returns null where nothing was left to send. @param {(id: string) => void} known */
  async #connection(known) {
    const {silenceMs} = this.#api.options
    const attempt = new AbortController()
    const drop = () => attempt.abort()
    let heard = Date.now()
    let timer = setTimeout(drop, silenceMs)
    this.#left.signal.addEventListener('abort', drop)
    if (this.#left.signal.aborted) drop()
    const ignore = onWake(woken => { if (woken === 'online' || Date.now() - heard > silenceMs / 2) drop() })
    const parser = new EventParser()
    try {
      const begun = this.id !== null
      const response = begun ? await this.#api.events(this.id ?? '', this.cursor, attempt.signal) : await this.#open(attempt.signal)
      if (response.status === 204) {
        await this.#endOf(attempt.signal)
        return null
      }
      if (!response.headers.get('content-type')?.startsWith('text/event-stream') || !response.body) {
        drop()
        throw new ParleyError({code: 'not_an_event_stream', detail: 'Something between here and the service answered in its place.'})
      }
      const reader = response.body.getReader()
      while (this.status === 'streaming') {
        const {done, value} = await reader.read().catch(() => ({done: true, value: undefined}))
        if (this.#left.signal.aborted) throw this.#left.signal.reason
        if (done || !value) break
        heard = Date.now()
        this.#heard += value.length
        clearTimeout(timer)
        timer = setTimeout(drop, silenceMs)
        for (const event of parser.push(value)) this.#take(event, known)
      }
      return parser
    } finally {
      clearTimeout(timer)
      ignore()
      this.#left.signal.removeEventListener('abort', drop)
      drop()
    }
  }

  /** @param {{type: string, data: string, id: string}} event  @param {(id: string) => void} known */
  #take({type, data, id}, known) {
    if (this.status !== 'streaming') return
    this.cursor = id || this.cursor
    if (type === 'message' || type === 'reasoning') {
      if (type === 'message') this.text += data
      else this.reasoning += data
      return this.#tell({type: type === 'message' ? 'text' : 'reasoning', cursor: id, text: data})
    }
    const fields = JSON.parse(data)
    if (type === 'start') {
      this.id = fields.message
      this.conversation = fields.conversation
      this.replyTo = fields.reply_to
      this.model = fields.model
      known(fields.message)
    }
    if (type === 'end') {
      this.status = fields.status
      this.model = fields.model ?? this.model
    }
    this.#tell({...fields, type, cursor: id})
  }

  /** Nothing is left to send: what the end said stands in the message. @param {AbortSignal} signal */
  async #endOf(signal) {
    const message = await this.#api.json('GET', `/messages/${this.id}`, {signal})
    if (message.status === 'streaming') return
    this.status = message.status
    this.conversation = message.conversation
    this.replyTo = message.parent
    this.model = message.model
    const {status, finish_reason, model, usage, error} = message
    this.#tell({type: 'end', cursor: this.cursor, status, finish_reason, model, usage, error})
  }

  /** @param {AnswerEvent} event */
  #tell(event) {
    this.#queue.push(event)
    this.#wake()
  }
}

/** How requests are made. */
class Api {
  /** @type {Promise<unknown> | null} */
  #introduced = null
  /** @type {Map<string, string>} Node keeps no cookies. A browser does, and shows none here. */
  #cookies = new Map()

  /** @param {Options} given */
  constructor({base = '', headers = {}, ...rest}) {
    this.base = base.replace(/\/$/, '')
    this.headers = headers
    this.options = {
      fetch: /** @type {typeof fetch} */ ((...asked) => globalThis.fetch(...asked)),
      credentials: /** @type {RequestCredentials} */ ('same-origin'),
      silenceMs: 40_000,
      patienceMs: 60_000,
      askPatienceMs: 10_000,
      retryMs: 500,
      ...rest,
    }
  }

  /**
   * Ask once. Raises ParleyError for a status that is no success, and what `fetch` raises where there is none.
   * @param {string} method  @param {string} path
   * @param {{body?: unknown, headers?: Record<string, string>, signal?: AbortSignal}} [options]
   */
  async ask(method, path, {body, headers = {}, signal} = {}) {
    const own = typeof this.headers === 'function' ? await this.headers() : this.headers
    /** @type {Record<string, string>} */
    const cookie = this.#cookies.size ? {cookie: [...this.#cookies.values()].join('; ')} : {}
    const response = await this.options.fetch(this.base + path, {
      method,
      headers: {...cookie, ...own, ...(body === undefined ? {} : {'Content-Type': 'application/json'}), ...headers},
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: this.options.credentials,
      signal,
    })
    for (const line of response.headers.getSetCookie?.() ?? []) this.#cookies.set(line.split('=')[0], line.split(';')[0])
    if (response.ok) return response
    const problem = await response.json().catch(() => ({title: `The service answered ${response.status}.`}))
    throw new ParleyError(problem, response.status, retryAfter(response))
  }

  /** @param {string} method  @param {string} path  @param {{body?: unknown, signal?: AbortSignal}} [options] */
  async json(method, path, options = {}) {
    const response = await this.ask(method, path, {...options, headers: {Accept: 'application/json'}})
    return response.status === 204 ? null : response.json()
  }

  /** @param {string} id  @param {string} cursor  @param {AbortSignal} signal */
  events(id, cursor, signal) {
    const headers = {Accept: 'text/event-stream', ...(cursor ? {'Last-Event-ID': cursor} : {})}
    return this.ask('GET', `/messages/${id}/events`, {headers, signal})
  }

  /**
   * Ask the model. The same key and body each time: the service asks once, however often this is sent.
   * @param {string} path  @param {unknown} body  @param {string} key
   */
  asker(path, body, key) {
    const headers = {Accept: 'text/event-stream', 'Idempotency-Key': key}
    return async (/** @type {AbortSignal} */ signal) => {
      await this.introduce(signal)
      return this.ask('POST', path, {body, headers, signal})
    }
  }

  /** A browser without a cookie is a new owner with each POST, and a key holds for one owner: get the cookie first. */
  async introduce(/** @type {AbortSignal | undefined} */ signal = undefined) {
    const own = typeof this.headers === 'function' ? await this.headers() : this.headers
    if (Object.keys(own).some(name => name.toLowerCase() === 'authorization')) return
    this.#introduced ??= this.ask('GET', '/conversations', {signal}).then(response => response.arrayBuffer())
    await this.#introduced.catch(error => { this.#introduced = null; throw error })
  }
}

/**
 * Return the functions that ask the service at `base`. See `client.d.ts` for each.
 * @param {Options} [options]
 * @returns {import('./client.js').Parley}
 */
export function connect(options = {}) {
  const api = new Api(options)
  return {
    send(content, {conversation, parent, signal, key = uuid(), ...more} = {}) {
      const where = conversation ? {conversation} : {}
      const after = parent === undefined || (parent === null && !conversation) ? {} : {parent}
      return new Answer(api, api.asker('/messages', {content, ...where, ...after, ...more}, key), {signal})
    },
    regenerate(id, {signal, key = uuid(), ...more} = {}) {
      return new Answer(api, api.asker(`/messages/${id}/regenerate`, more, key), {signal})
    },
    resume(id, {after, signal} = {}) {
      return new Answer(api, cut => api.events(id, '', cut), {id, after, signal})
    },
    stop: id => api.json('POST', `/messages/${id}/stop`),
    message: id => api.json('GET', `/messages/${id}`),
    conversation: id => api.json('GET', `/conversations/${id}`),
    conversations: next => api.json('GET', next ?? '/conversations'),
    create: (fields = {}) => api.json('POST', '/conversations', {body: fields}),
    change: (id, fields) => api.json('PATCH', `/conversations/${id}`, {body: fields}),
    rename: (id, title) => api.json('PATCH', `/conversations/${id}`, {body: {title}}),
    remove: async id => { await api.ask('DELETE', `/conversations/${id}`) },
    models: () => api.json('GET', '/models'),
    diagnose: ({signal} = {}) => measure(api, signal),
  }
}

/** Measure whether events arrive when they are sent. @param {Api} api  @param {AbortSignal} [signal] */
async function measure(api, signal) {
  const asked = performance.now()
  const response = await api.ask('GET', '/health/stream', {signal})
  const parser = new EventParser()
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader()
  /** @type {number[]} */
  const times = []
  let everyMs = 0
  for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
    for (const event of parser.push(piece.value)) {
      everyMs = JSON.parse(event.data).every_ms
      times.push(performance.now() - asked)
    }
  }
  const gapsMs = times.slice(1).map((time, i) => time - times[i])
  // All together would take no time at all, one by one as long as the service has taken to send them.
  const buffered = times.length < 2 || times[times.length - 1] - times[0] < (everyMs * gapsMs.length) / 2
  const sentence = buffered
    ? 'Something between here and the service holds answers back until they are complete: switch its buffering off.'
    : 'Answers arrive while they are written.'
  return {buffered, firstTickMs: times[0] ?? null, gapsMs, sentence}
}

/** What `Retry-After` asks for, in milliseconds; null where it says nothing. @param {Response} response */
function retryAfter(response) {
  const value = response.headers.get('retry-after')
  if (!value) return null
  const ms = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now()
  return Number.isNaN(ms) ? null : Math.max(0, ms)
}

/** Wait; the network's return or the tab's ends it early. @param {number} ms  @param {AbortSignal} signal */
function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const ignore = onWake(() => finish())
    const leave = () => { finish(); reject(signal.reason) }
    const finish = () => {
      clearTimeout(timer)
      ignore()
      signal.removeEventListener('abort', leave)
      resolve(undefined)
    }
    const timer = setTimeout(finish, ms)
    signal.addEventListener('abort', leave)
    if (signal.aborted) leave()
  })
}

/** Hear of a tab that wakes and a network that returns; returns how to stop. @param {(why: string) => void} heard */
function onWake(heard) {
  if (typeof document === 'undefined' || typeof addEventListener === 'undefined') return () => {}
  const online = () => heard('online')
  const visible = () => { if (document.visibilityState === 'visible') heard('visible') }
  addEventListener('online', online)
  document.addEventListener('visibilitychange', visible)
  return () => {
    removeEventListener('online', online)
    document.removeEventListener('visibilitychange', visible)
  }
}

/** `crypto.randomUUID` is there in secure contexts only. */
function uuid() {
  if (crypto.randomUUID) return crypto.randomUUID()
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), byte => byte.toString(16).padStart(2, '0')).join('')
}

/** The same for a page of the service's own: `import {send} from '/client.js'`. */
export const {
  send, regenerate, resume, stop, message, conversation, conversations, create, change, rename, remove, models, diagnose,
} = connect()
