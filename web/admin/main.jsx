// The operators' page: finds out which view the address names, and whether a login is needed.
import './language.js' // before whatever asks for the language
import { render } from 'preact'
import { useCallback, useEffect, useRef, useState } from 'preact/hooks'
import { get, onLoginNeeded, post } from './api.js'
import { DeadLetters } from './deadletters.jsx'
import { Live } from './live.jsx'
import { Login } from './login.jsx'
import { Overview } from './overview.jsx'
import { usePoll } from './parts.jsx'
import { Setup } from './setup.jsx'
import { Trying } from './trying.jsx'
import './admin.css'

const VIEWS = [
  ['overview', 'Overview', Overview, 'M4 13h6V4H4v9Zm0 7h6v-5H4v5Zm10 0h6v-9h-6v9Zm0-16v5h6V4h-6Z'],
  ['live', 'Live', Live, 'M3 12h4l3-8 4 16 3-8h4'],
  ['dead-letters', 'Dead letters', DeadLetters, 'M4 6h16v12H4V6Zm0 1 8 6 8-6'],
  ['try', 'Try it', Trying, 'M7 4v16l13-8L7 4Z'],
  ['setup', 'SDK set-up', Setup, 'm8 7-5 5 5 5m8-10 5 5-5 5M14 4l-4 16'],
]

/** The view and its parameters that the address names: `#live?source=site`. */
function place() {
  const [name, search = ''] = location.hash.replace(/^#\/?/, '').split('?')
  const view = VIEWS.some(([key]) => key === name) ? name : 'overview'
  return { view, params: Object.fromEntries(new URLSearchParams(search)) }
}

function App() {
  const [where, setWhere] = useState(place)
  const [needsLogin, setNeedsLogin] = useState(false)
  const [state, setState] = useState({ overview: null, lost: null })
  const main = useRef(null)

  useEffect(() => onLoginNeeded(() => setNeedsLogin(true)), [])
  useEffect(() => {
    const moved = () => {
      setWhere(place())
      // Whoever reads with a screen reader begins at the new view's heading.
      requestAnimationFrame(() => main.current?.querySelector('h1')?.focus({ preventScroll: true }))
      scrollTo(0, 0)
    }
    addEventListener('hashchange', moved)
    return () => removeEventListener('hashchange', moved)
  }, [])

  const look = useCallback(async () => {
    if (needsLogin) return
    try {
      const overview = await get('api/overview')
      setState({ overview, lost: null })
    } catch (error) {
      if (error.status !== 401) setState((was) => ({ ...was, lost: was.lost ?? Date.now() }))
    }
  }, [needsLogin])
  usePoll(look, 2, [look])

  const worst = state.lost ? 'outage' : state.overview?.findings[0]?.level ?? 'fine'
  useEffect(() => {
    const name = VIEWS.find(([key]) => key === where.view)[1]
    document.title = `${worst === 'outage' ? '● ' : ''}${name} · edgeproxy`
    document.documentElement.dataset.level = worst
  }, [where.view, worst])

  if (needsLogin) return <Login onDone={() => { setNeedsLogin(false); look() }} />
  const View = VIEWS.find(([key]) => key === where.view)[2]
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); main.current.querySelector('h1')?.focus() }}>Skip to content</a>
      <Navigation view={where.view} overview={state.overview} worst={worst} />
      <p class="sr" role="status">{state.overview && summary(state.overview.findings)}</p>
      <main id="main" ref={main}>
        {state.lost && (
          <div class="banner bad" role="alert">
            <strong>This page cannot reach the proxy.</strong>{' '}
            It has ended, restarts, or the tunnel to it is closed. What is shown is from before.
          </div>
        )}
        {!state.lost && worst === 'outage' && where.view !== 'overview' && (
          <a class="banner bad" href="#overview"><strong>{state.overview.findings[0].title}.</strong> Overview says why, and what to do.</a>
        )}
        <View overview={state.overview} params={where.params} refresh={look} />
      </main>
    </>
  )
}

/** How things are, for a screen reader to say when that changes: without numbers that count on. */
function summary(findings) {
  const outages = findings.filter(({ level }) => level === 'outage').map(({ title }) => title)
  if (outages.length) return `${outages.join('. ')}.`
  return findings.length ? 'Something needs a look: see Overview.' : 'No problems.'
}

function Navigation({ view, overview, worst }) {
  const letters = overview?.status.dead_letters.count ?? 0
  return (
    <aside class="side"><div class="side-in">
      <a class="brand" href="#overview" aria-label="edgeproxy, overview">
        <svg viewBox="0 0 32 32" width="26" height="26" aria-hidden="true">
          <rect width="32" height="32" rx="8" class="mark" />
          <path d="M7 11h9m-9 5h13m-13 5h9" class="strokes" /><path d="m19 10 6 6-6 6" class="strokes" />
        </svg>
        <span>edgeproxy</span>
      </a>
      <nav aria-label="Views">
        {VIEWS.map(([key, name, , path]) => (
          <a key={key} href={`#${key}`} aria-current={view === key ? 'page' : undefined}>
            <svg viewBox="0 0 24 24" width="19" height="19" aria-hidden="true"><path d={path} /></svg>
            <span>{name}</span>
            {key === 'dead-letters' && letters > 0 && <b class="badge">{letters > 999 ? '999+' : letters}</b>}
            {key === 'overview' && worst !== 'fine' && <b class={`dot ${worst}`} title="Something needs a look" />}
          </a>
        ))}
      </nav>
      {overview && (
        <footer class="side-foot">
          <span>{overview.status.version}</span>
          {overview.needsLogin && (
            <button type="button" class="link" onClick={async () => { await post('api/logout'); location.reload() }}>Log out</button>
          )}
        </footer>
      )}
    </div></aside>
  )
}

const root = document.createElement('div')
root.id = 'app'
document.body.append(root)
render(<App />, root)
