// A front end's use of the client, so that its types are tried by the compiler: `tsc` runs over it, nobody runs it.

import {connect, EventParser, ParleyError, send, type AnswerEvent, type Message, type Page} from '../../app/page/client.js'

const shown: string[] = []

export async function converse(signal: AbortSignal): Promise<Message> {
  const parley = connect({base: 'https://chat.example', headers: async () => ({Authorization: 'Bearer x'})})
  const answer = parley.send('Hello!', {conversation: 'conv_1', parent: null, model: 'm', signal, temperature: 0})
  for await (const event of answer) {
    if (event.type === 'text') shown.push(event.text)
    if (event.type === 'tool_call') shown.push(event.name, event.arguments)
    if (event.type === 'end') shown.push(event.status, String(event.usage?.total_tokens), event.error?.code ?? '')
    // @ts-expect-error: there is no such event
    if (event.type === 'nothing') shown.push('')
  }
  // @ts-expect-error: whoever reads does not write
  answer.text = ''
  return (await answer.message).status === 'completed' ? answer.stop() : parley.resume('msg_1', {after: answer.cursor}).message
}

export async function list(): Promise<void> {
  let page: Page = await connect().conversations()
  while (page.next) page = await connect().conversations(page.next)
  const events: AnswerEvent[] = []
  for await (const event of send([{type: 'text', text: 'Hi'}])) events.push(event)
  const {buffered, gapsMs} = await connect().diagnose()
  shown.push(String(buffered), String(gapsMs[0]), new EventParser().lastEventId)
}

export async function useTools(answer: Message): Promise<string> {
  const tool_results = (answer.tool_calls ?? []).map(call => ({tool_call_id: call.id, content: call.arguments}))
  const {parent} = await send(undefined, {conversation: answer.conversation, role: 'tool', tool_results}).message
  const asked = await connect().message(parent ?? '')
  return asked.tool_call_id ?? asked.tool_results?.[0]?.content ?? ''
}

export const told = (error: unknown): string => (error instanceof ParleyError ? `${error.code} ${error.requestId}` : '')
