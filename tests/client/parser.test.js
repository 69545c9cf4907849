// The parser of server-sent events: every format case of the standard, with the bytes cut at every position.

import assert from 'node:assert/strict'
import test from 'node:test'
import {EventParser} from '../../app/page/client.js'

const bytes = text => new TextEncoder().encode(text)
const event = (data, {type = 'message', id = ''} = {}) => ({type, data, id})

const CASES = {
  'one line of data': ['data: Hello\n\n', [event('Hello')]],
  'several lines of data': ['data: one\ndata: two\ndata:\ndata: four\n\n', [event('one\ntwo\n\nfour')]],
  'lines that end with CR': ['data: one\rdata: two\r\rdata: three\r\r', [event('one\ntwo'), event('three')]],
  'lines that end with CRLF': ['data: one\r\ndata: two\r\n\r\ndata: three\r\n\r\n', [event('one\ntwo'), event('three')]],
  'all three line ends together': ['data: a\r\ndata: b\rdata: c\n\r\ndata: d\n\n', [event('a\nb\nc'), event('d')]],
  'a byte order mark': ['\ufeffdata: Hello\n\n', [event('Hello')]],
  'a second byte order mark, which makes another field': ['\ufeff\ufeffdata: Hello\n\n', []],
  'data that is empty': ['data\n\ndata:\n\ndata: \n\n', [event(''), event(''), event('')]],
  'two empty lines of data': ['data\ndata\n\n', [event('\n')]],
  'no data, which is no event': ['event: start\n\ndata: next\n\n', [event('next')]],
  'one space taken off, no more': ['data:no\n\ndata:  two\n\ndata:\ttab\n\n', [event('no'), event(' two'), event('\ttab')]],
  'an id, which stays': ['id: 4\ndata: a\n\ndata: b\n\nid\ndata: c\n\n', [event('a', {id: '4'}), event('b', {id: '4'}), event('c')]],
  'an id without data': ['id: 4\n\ndata: b\n\n', [event('b', {id: '4'})]],
  'an id with NUL, which is ignored': ['id: 4\ndata: a\n\nid: 5\0\ndata: b\n\n', [event('a', {id: '4'}), event('b', {id: '4'})]],
  'a type, for one event only': ['event: end\ndata: a\n\ndata: b\n\n', [event('a', {type: 'end'}), event('b')]],
  'unknown fields and odd lines': ['datum: a\nDATA: b\n data: c\nfoo\ndata: d\n\n', [event('d')]],
  'comments': [':\n: ping\n:data: no\ndata: a\n:in between\ndata: b\n\n:\n', [event('a\nb')]],
  'colons in a value': ['data: a: b:c\n\n', [event('a: b:c')]],
  'an unfinished last event, which is dropped': ['data: a\n\ndata: b\nid: 9\n', [event('a')]],
  'characters of two, three and four bytes': ['data: é 你好 👋🏽\ndata: ‏שלום\n\n', [event('é 你好 👋🏽\n‏שלום')]],
  'line separators that are none here': ['data: a\u2028b\u0085c\u000bd\n\n', [event('a\u2028b\u0085c\u000bd')]],
}

for (const [name, [text, expected]] of Object.entries(CASES)) {
  test(`${name}, cut at every position`, () => {
    const whole = bytes(text)
    for (let first = 0; first <= whole.length; first += 1) {
      for (let second = first; second <= whole.length; second += 1) {
        const parser = new EventParser()
        const pieces = [whole.subarray(0, first), whole.subarray(first, second), whole.subarray(second)]
        assert.deepEqual(pieces.flatMap(piece => parser.push(piece)), expected, `cut at ${first} and ${second}`)
      }
    }
  })

  test(`${name}, a byte at a time`, () => {
    const parser = new EventParser()
    assert.deepEqual([...bytes(text)].flatMap(byte => parser.push(Uint8Array.of(byte))), expected)
  })
}

test('retry takes digits only', () => {
  const parser = new EventParser()
  parser.push(bytes('retry: 1.5\nretry: -1\nretry: 1e3\nretry:\nretry\nretry:  5\n'))
  assert.equal(parser.retry, null)
  parser.push(bytes('retry: 2500\n'))
  assert.equal(parser.retry, 2500)
})

test('the id of an event that was cut off does not count', () => {
  const parser = new EventParser()
  parser.push(bytes('id: 4\ndata: a\n\nid: 9\ndata: b\n'))
  assert.equal(parser.lastEventId, '4')
})

test('an event is told as soon as its line end is there, CR or not', () => {
  assert.equal(new EventParser().push(bytes('data: a\r\r')).length, 1)
})

test('a line of four million characters in pieces of four is read in time that grows with its length only', {timeout: 60_000}, () => {
  const parser = new EventParser()
  const piece = bytes('abcd')
  parser.push(bytes('data: '))
  for (let i = 0; i < 1_000_000; i += 1) parser.push(piece)
  const [{data}] = parser.push(bytes('\n\n'))
  assert.equal(data.length, 4_000_000)
})
