// The first form of the browser client: what the page needs, in the fewest lines. Shows an answer once, and resumes.
export function connect({base = ''} = {}) {
  async function ask(method, path, body, options = {}) {
    const response = await fetch(base + path, {method, headers: {...(body ? {'Content-Type': 'application/json'} : {}), ...options.headers}, body: body ? JSON.stringify(body) : undefined, signal: options.signal})
    if (!response.ok && response.status !== 304) {
      const problem = await response.json().catch(() => ({}))
      throw Object.assign(new Error(problem.detail), problem, {status: response.status})
    }
    return response
  }
  function stream(start) {
    let message = null
    return {
      async stop() { if (message) await ask('POST', `/messages/${message}/stop`) },
      async *[Symbol.asyncIterator]() {
        let last = 0, open = start
        for (;;) {
          try {
            const response = await open()
            if (response.status === 204) return
            let rest = ''
            for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
              const frames = (rest + piece).split('\n\n')
              rest = frames.pop()
              for (const frame of frames) {
                const lines = frame.split('\n').filter(l => !l.startsWith(':'))
                const field = name => lines.filter(l => l.startsWith(name + ': ')).map(l => l.slice(name.length + 2)).join('\n')
                last = field('id') || last
                const type = field('event')
                if (!type) yield {type: 'text', text: field('data')}
                else if (type === 'reasoning') yield {type, text: field('data')}
                else {
                  const data = JSON.parse(field('data'))
                  if (type === 'start') message = data.message
                  yield {type, ...data}
                  if (type === 'end') return
                }
              }
            }
          } catch (error) { if (error.status || error.name === 'AbortError' || !message) throw error }
          await new Promise(r => setTimeout(r, 300))
          open = () => ask('GET', `/messages/${message}/events`, null, {headers: {'Last-Event-ID': last}})
        }
      },
    }
  }
  return {
    send: (content, {conversation, parent, signal} = {}) => stream(() => ask('POST', '/messages', {content, ...(conversation ? {conversation} : {}), ...(conversation ? {parent} : {})}, {headers: {'Idempotency-Key': crypto.randomUUID()}, signal})),
    resume: (id, {signal} = {}) => stream(() => ask('GET', `/messages/${id}/events`, null, {signal})),
    regenerate: (id, {signal} = {}) => stream(() => ask('POST', `/messages/${id}/regenerate`, null, {signal})),
    conversation: async id => (await ask('GET', `/conversations/${id}`)).json(),
    conversations: async next => (await ask('GET', next ?? '/conversations')).json(),
    rename: (id, title) => ask('PATCH', `/conversations/${id}`, {title}),
    remove: id => ask('DELETE', `/conversations/${id}`),
    models: async () => (await ask('GET', '/models')).json(),
    diagnose: async () => ({buffered: true}),
  }
}
