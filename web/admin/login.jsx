import { useState } from 'preact/hooks'
import { post } from './api.js'

export function Login({ onDone }) {
  const [token, setToken] = useState('')
  const [problem, setProblem] = useState('')
  const [busy, setBusy] = useState(false)
  const submit = async (event) => {
    event.preventDefault()
    setBusy(true)
    setProblem('')
    try {
      await post('api/login', { token: token.trim() })
      onDone()
    } catch (error) {
      setProblem(
        error.code === 'too_many_tries' ? `Too many wrong tokens. Try again in ${error.retryAfter} s.`
          : error.status === 401 ? 'That is not the token.'
            : 'The proxy does not answer. Try again in a moment.',
      )
    } finally {
      setBusy(false)
    }
  }
  return (
    <main class="login">
      <form onSubmit={submit}>
        <h1>edgeproxy</h1>
        <label class="field">
          <span>Admin token</span>
          <input type="password" autocomplete="current-password" required autofocus value={token}
            aria-describedby="token-help" aria-invalid={problem ? 'true' : undefined}
            onInput={(event) => setToken(event.currentTarget.value)} />
        </label>
        <p id="token-help" class="soft">It is <code>[admin] token</code> of the proxy's configuration.</p>
        <p class="problem" role="alert">{problem}</p>
        <button type="submit" class="primary" disabled={busy}>Log in</button>
      </form>
    </main>
  )
}
