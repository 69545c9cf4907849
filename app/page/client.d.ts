/** Types of Parley's browser client, `client.js`. */

export type Status = 'streaming' | 'completed' | 'stopped' | 'interrupted' | 'failed'
export interface Usage { prompt_tokens: number, completion_tokens: number, total_tokens: number }
export interface Failure { code: string, message: string, retryable: boolean }
export interface ToolCall { id: string, name: string, arguments: string }
export interface ToolResult { tool_call_id: string, content: string }
export type Part = {type: 'text', text: string} | {type: 'image_url', image_url: {url: string}}

/** `cursor`: what to resume after. `text` of an event is what is new; the answer's own `text` is all so far. */
export type AnswerEvent =
  | {type: 'start', cursor: string, conversation: string, message: string, reply_to: string, model: string}
  | {type: 'text', cursor: string, text: string}
  | {type: 'reasoning', cursor: string, text: string}
  | {type: 'tool_call', cursor: string} & ToolCall
  | {type: 'notice', cursor: string, code: string, left_out?: number, attempt?: number, delay_seconds?: number, model?: string}
  | {type: 'end', cursor: string, status: Exclude<Status, 'streaming'>, finish_reason: string | null,
     model: string | null, usage: Usage | null, error: Failure | null}

export interface Message {
  id: string
  conversation: string
  parent: string | null
  role: 'user' | 'assistant' | 'tool'
  content: string | Part[]
  status: Status
  created_at: string
  model?: string
  finish_reason?: string | null
  usage?: Usage | null
  error?: Failure | null
  completed_at?: string | null
  reasoning?: string | null
  tool_calls?: ToolCall[] | null
  /** Of a `tool` message; where it is one, its `tool_call_id` stands beside its `content` too. */
  tool_results?: ToolResult[]
  tool_call_id?: string
  left_out?: number | null
}
export interface Fields { title?: string | null, system?: string | null, model?: string | null, metadata?: Record<string, unknown> }
export interface Summary {
  id: string
  title: string | null
  system: string | null
  model: string | null
  metadata: Record<string, unknown>
  created_at: string
  updated_at: string
  /** The answer that is being written. */
  active: string | null
  usage: Usage
  message_count: number
}
export type Conversation = Omit<Summary, 'message_count'> & {messages: Message[]}
/** `next` is what `conversations(next)` takes; null: this is the last page. */
export interface Page { conversations: Summary[], next: string | null }

export interface Options {
  /** Where the service is, without a slash at the end; '' (the default): where the page came from. */
  base?: string
  fetch?: typeof globalThis.fetch
  /** Of each request; a function is asked each time, for a token that changes: `() => ({Authorization: …})`. */
  headers?: Record<string, string> | (() => Record<string, string> | Promise<Record<string, string>>)
  /** 'same-origin' by default; 'include' for a service elsewhere that is to see its cookie. */
  credentials?: RequestCredentials
  /** A connection on which nothing has come for so long, no sign of life either, is given up and resumed. 40 000. */
  silenceMs?: number
  /** So long it tries to reach an answer of which it hears nothing, no sign of life either; then the iteration throws. 60 000; Infinity: for ever. */
  patienceMs?: number
  /** The same for a question that nobody has accepted yet. 10 000. */
  askPatienceMs?: number
  /** The longest first delay before another try; doubles each time, and is drawn at random below that. 500. */
  retryMs?: number
}

export interface ReadOptions {
  /** Ends the reading, not the answer: the iteration throws the signal's reason. */
  signal?: AbortSignal
}
/** Whatever else `POST /messages` takes goes along: `temperature`, `tools`, … */
export interface AskOptions extends ReadOptions {
  conversation?: string | null
  /** The message to reply to instead of the last: an edit, a branch. null: a new first message. */
  parent?: string | null
  model?: string
  system?: string
  /** What tools have answered: one result, as `content` with its `tool_call_id`, or all of them and no `content`. */
  role?: 'user' | 'tool'
  tool_call_id?: string
  tool_results?: ToolResult[]
  /** The Idempotency-Key; made by itself. */
  key?: string
  [field: string]: unknown
}

/** An answer that is being read: iterate it once, or await `message`. */
export class Answer implements AsyncIterable<AnswerEvent> {
  private constructor()
  /** All so far (of `resume(id, {after})`: after that). */
  readonly text: string
  readonly reasoning: string
  /** Known with `start`. */
  readonly id: string | null
  readonly conversation: string | null
  readonly replyTo: string | null
  readonly model: string | null
  readonly status: Status
  readonly cursor: string
  /** The final message, once it is final. */
  readonly message: Promise<Message>
  /** Stop the answer, also before its first event, and return the final message. */
  stop(): Promise<Message>
  [Symbol.asyncIterator](): AsyncGenerator<AnswerEvent, void, undefined>
}

export class ParleyError extends Error {
  constructor(problem: Record<string, unknown>, status?: number, retryAfterMs?: number | null)
  /** 0: no answer came. */
  readonly status: number
  readonly code: string
  readonly detail: string
  readonly requestId: string | null
  readonly retryable: boolean
  readonly retryAfterMs: number | null
  readonly problem: any
}

/** Of server-sent events: bytes, cut anywhere, in; events out. */
export class EventParser {
  readonly lastEventId: string
  readonly retry: number | null
  push(bytes: Uint8Array): {type: string, data: string, id: string}[]
}

export interface Diagnosis { buffered: boolean, firstTickMs: number | null, gapsMs: number[], sentence: string }

export interface Parley {
  /** Say something, and read the answer. It is asked once, however often the connection breaks. */
  send(content: string | Part[] | undefined, options?: AskOptions): Answer
  /** Another answer to the same message, as a sibling. */
  regenerate(id: string, options?: ReadOptions & {model?: string, key?: string, [field: string]: unknown}): Answer
  /** Read an answer from its start, or after a cursor; while it is written and when it is over. */
  resume(id: string, options?: ReadOptions & {after?: string}): Answer
  stop(id: string): Promise<Message>
  message(id: string): Promise<Message>
  conversation(id: string): Promise<Conversation>
  /** A page of 50, newest activity first; `next` is that of the page before. */
  conversations(next?: string | null): Promise<Page>
  create(fields?: Fields): Promise<Conversation>
  change(id: string, fields: Fields): Promise<Conversation>
  rename(id: string, title: string): Promise<Conversation>
  remove(id: string): Promise<void>
  models(): Promise<{object: 'list', data: {id: string, object: 'model', created: number, owned_by: string}[]}>
  /** Do events arrive when they are sent, or does a proxy hold them back? Takes a second. */
  diagnose(options?: ReadOptions): Promise<Diagnosis>
}

export function connect(options?: Options): Parley

/** The same for a page of the service's own. */
export const send: Parley['send']
export const regenerate: Parley['regenerate']
export const resume: Parley['resume']
export const stop: Parley['stop']
export const message: Parley['message']
export const conversation: Parley['conversation']
export const conversations: Parley['conversations']
export const create: Parley['create']
export const change: Parley['change']
export const rename: Parley['rename']
export const remove: Parley['remove']
export const models: Parley['models']
export const diagnose: Parley['diagnose']
