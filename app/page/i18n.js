// What the page says, in English and in Chinese: the first of the two in the browser's list of languages.

export const WORDS = {
  en: {
    newChat: 'New chat', conversations: 'Conversations', menu: 'Show conversations', close: 'Close', more: 'Show more',
    noConversations: 'Your conversations will be listed here.', untitled: 'Untitled', rename: 'Rename', remove: 'Delete',
    removeAsk: 'Delete this conversation?', removeMore: '“{title}” and all its messages will be gone for good.',
    cancel: 'Cancel', save: 'Save', sendEdit: 'Send', title: 'Title', skip: 'Skip to the message box',
    messages: 'Messages', yourMessage: 'Your message', placeholder: 'Write a message…', send: 'Send', stop: 'Stop',
    keys: 'Enter sends, Shift+Enter makes a new line',
    you: 'You', answer: 'Answer', answering: 'Answering…', complete: 'The answer is complete.', stopped: 'Stopped.',
    interrupted: 'The answer was broken off: the server that wrote it went away.', failed: 'The answer failed.',
    copy: 'Copy', copied: 'Copied', copyCode: 'Copy code', regenerate: 'Another answer', edit: 'Edit', tryAgain: 'Try again',
    previous: 'Previous version', next: 'Next version', version: '{n} of {all}', latest: 'To the latest',
    reasoning: 'Reasoning', reasoningNow: 'Thinking…', tokens: '{n} tokens',
    tokensMore: '{prompt} read, {completion} written', toolCall: 'calls {name}', toolResult: 'Result of a tool', image: 'image',
    noticeRetrying: 'The model server does not answer. Try {attempt} comes in {delay_seconds} s.',
    noticeModel: '{model} answers instead.', noticeTrimmed: '{left_out} older messages did not fit and were left out.',
    length: 'The answer was cut at the length that the model may write.',
    filtered: 'The model server’s filter cut the answer.',
    reconnecting: 'Connection lost. It goes on as soon as the network is back.', offline: 'The service can’t be reached.',
    refused: 'The service said no: {detail}',
    unsent: 'A message that you had left could not be sent. It waits in the message box of its conversation.',
    forPrograms: 'This service wants a token from each program that asks it. This page has none: it is for anonymous use only (AUTH=anonymous).',
    lost: 'This conversation does not exist, or is not yours.',
    busy: 'An answer is already being written in this conversation.',
    demo: 'Demo: no AI answers here, only a small program.', demoMore: 'Set OPENAI_API_KEY or OPENAI_BASE_URL for a real model.',
    buffered: 'Something between you and the service holds answers back: they come in one piece. Switch off the buffering of responses in your proxy (nginx: proxy_buffering off).',
    dismiss: 'Dismiss', hello: 'What is on your mind?', helloMore: 'Ask anything. The answer is kept, even if you close this page while it is being written.',
    example1: 'Explain how a rainbow forms', example2: 'Write a long story about a lighthouse keeper',
    example3: 'Draft a friendly reply that says no', example4: 'Show me a Python function that reverses a list',
  },
  zh: {
    newChat: '新对话', conversations: '对话', menu: '显示对话列表', close: '关闭', more: '显示更多',
    noConversations: '你的对话会列在这里。', untitled: '未命名', rename: '重命名', remove: '删除',
    removeAsk: '删除这个对话？', removeMore: '“{title}”及其全部消息将被永久删除。',
    cancel: '取消', save: '保存', sendEdit: '发送', title: '标题', skip: '跳到输入框',
    messages: '消息', yourMessage: '你的消息', placeholder: '输入消息…', send: '发送', stop: '停止',
    keys: '回车发送，Shift+回车换行',
    you: '你', answer: '回答', answering: '正在回答…', complete: '回答完毕。', stopped: '已停止。',
    interrupted: '回答中断：写它的服务器离开了。', failed: '回答失败。',
    copy: '复制', copied: '已复制', copyCode: '复制代码', regenerate: '换一个回答', edit: '编辑', tryAgain: '重试',
    previous: '上一版', next: '下一版', version: '第 {n} 个，共 {all} 个', latest: '到最新处',
    reasoning: '思考过程', reasoningNow: '思考中…', tokens: '{n} 个词元',
    tokensMore: '读 {prompt}，写 {completion}', toolCall: '调用 {name}', toolResult: '工具结果', image: '图片',
    noticeRetrying: '模型服务器没有回应，{delay_seconds} 秒后第 {attempt} 次尝试。',
    noticeModel: '改由 {model} 回答。', noticeTrimmed: '较早的 {left_out} 条消息放不下，已略去。',
    length: '回答达到模型的长度上限而被截断。', filtered: '模型服务器的过滤器截断了回答。',
    reconnecting: '连接断了，网络恢复后会继续。', offline: '无法连接到服务。',
    refused: '服务拒绝了：{detail}',
    unsent: '你离开后有一条消息未能发送，它在原对话的输入框里等着。',
    forPrograms: '此服务要求每个程序出示令牌。本页面没有令牌，只供匿名使用（AUTH=anonymous）。',
    lost: '这个对话不存在，或不属于你。',
    busy: '这个对话里已有一个回答正在写。',
    demo: '演示：这里没有人工智能，只有一个小程序在回答。', demoMore: '设置 OPENAI_API_KEY 或 OPENAI_BASE_URL 即可使用真正的模型。',
    buffered: '你与服务之间的某个代理扣住了回答，使它一次全部到达。请关闭代理的响应缓冲（nginx：proxy_buffering off）。',
    dismiss: '知道了', hello: '你在想什么？', helloMore: '随便问。回答会被保存，即使你在写的时候关掉这个页面。',
    example1: '解释彩虹是怎样形成的', example2: '写一个守塔人的长故事',
    example3: '帮我写一封礼貌的拒绝信', example4: '给我一个反转列表的 Python 函数',
  },
}

/** 'en' or 'zh'. */
export const language =
  (navigator.languages ?? [navigator.language]).map(tag => tag.slice(0, 2).toLowerCase()).find(tag => tag in WORDS) ?? 'en'

/** The words under a key, with what stands in braces filled in. */
export function t(key, values = {}) {
  return WORDS[language][key].replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ''))
}

/** Fill in the words of the HTML: `data-t` is an element's text, `data-t-<attribute>` an attribute's. */
export function translate(root) {
  document.documentElement.lang = language === 'zh' ? 'zh-Hans' : 'en'
  for (const node of root.querySelectorAll('*')) {
    for (const [name, key] of Object.entries(node.dataset)) {
      if (name === 't') node.textContent = t(key)
      else if (/^t[A-Z]/.test(name)) node.setAttribute(name.slice(1).replace(/[A-Z]/g, c => `-${c.toLowerCase()}`).slice(1), t(key))
    }
  }
}
