// Every request to the proxy goes through here. Answers are JSON or JSON lines; a 401 asks for login.

export class ApiError extends Error {
  constructor(status, code, message, retryAfter) {
    super(message)
    this.status = status
    this.code = code
    this.retryAfter = retryAfter
  }
}

const listeners = new Set()

/** Call back whenever an answer says that a login is needed; gives a function that ends it. */
export function onLoginNeeded(callback) {
  listeners.add(callback)
  return () => listeners.delete(callback)
}

async function ask(path, { method = 'GET', body, signal } = {}) {
  const options = { method, signal, credentials: 'same-origin', headers: { Accept: 'application/json' } }
  if (body !== undefined) {
    options.headers['Content-Type'] = 'application/json'
    options.body = JSON.stringify(body)
  }
  const answer = await fetch(path, options)
  if (answer.ok) return answer
  const told = await answer.json().catch(() => ({}))
  if (answer.status === 401 && path !== 'api/login') for (const callback of listeners) callback()
  throw new ApiError(
    answer.status, told.code ?? '', told.message ?? `HTTP ${answer.status}`,
    Number(answer.headers.get('Retry-After')) || 0,
  )
}

export const get = async (path, options) => (await ask(path, options)).json()
export const post = async (path, body) => (await ask(path, { method: 'POST', body })).json()

/** Calls `each` with every document of a JSON-lines answer, until it ends or `signal` aborts. */
export async function lines(path, options, each) {
  const answer = await ask(path, options)
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader()
  let rest = ''
  for (;;) {
    const { value, done } = await reader.read()
    if (done) return
    const parts = (rest + value).split('\n')
    rest = parts.pop()
    for (const part of parts) if (part) each(JSON.parse(part))
  }
}

/** A query string of what is set. */
export function query(values) {
  const set = Object.entries(values).filter(([, value]) => value != null && value !== false)
  return set.length ? `?${new URLSearchParams(set)}` : ''
}
