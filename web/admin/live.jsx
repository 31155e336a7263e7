// Events as they pass: bounded here (ROWS kept, drawn four times a second) as on the proxy.
import { useEffect, useRef, useState } from 'preact/hooks'
import { get, lines, query } from './api.js'
import { clock, count, millis, moment, plural, size } from './format.js'
import { Choice, Dialog, Empty, Field, Head, Json, Pill, Segments, Toggle, VERDICTS } from './parts.jsx'

const ROWS = 200
const TYPES = ['track', 'identify', 'page', 'screen', 'group', 'alias']
const NOTHING = { source: '', type: '', verdict: '', event: '', user: '', text: '' }

const given = (filters) => Object.fromEntries(Object.entries(filters).filter(([, value]) => value))

const fresh = () => ({ rows: [], byId: new Map(), pulse: null, problem: '', changed: true })

/** Hear every line of a feed, opened anew when it breaks off; `trouble` is told why, then ''. */
async function follow(wanted, signal, hear, trouble) {
  while (!signal.aborted) {
    try {
      await lines(`api/live${query({ ...wanted, journeys: true })}`, { signal }, hear)
    } catch (error) {
      if (signal.aborted) return
      trouble(error.status === 503 ? 'Too many people watch already.' : 'The feed broke off; trying again.')
    }
    await new Promise((done) => setTimeout(done, 1500))
    trouble('')
  }
}

/** Rows of the live feed: newest first, with what became of each. */
function useFeed(filters, values, paused) {
  const [view, setView] = useState(fresh)
  const kept = useRef(null)
  kept.current ??= { ...fresh(), key: null }
  const key = JSON.stringify([filters, values])

  const hear = (line) => {
    const state = kept.current
    if (line.kind === 'event') {
      state.rows.unshift(line)
      state.byId.set(line.id, line)
      if (state.rows.length > ROWS) state.byId.delete(state.rows.pop().id)
    } else if (line.kind === 'attempt') {
      for (const id of line.ids) {
        const row = state.byId.get(id)
        if (row) row.attempt = line
      }
    } else {
      state.pulse = line
    }
    state.changed = true
  }

  useEffect(() => {
    // The proxy keeps the ways of the events that it showed while somebody watches. This feed, of a
    // source that there is not, has it do so while the other one is paused or opened anew.
    const ending = new AbortController()
    follow({ source: '' }, ending.signal, (line) => line.kind === 'attempt' && hear(line), () => undefined)
    const timer = setInterval(() => {
      const state = kept.current
      if (!state.changed || document.hidden) return
      state.changed = false
      setView({ ...state, rows: state.rows.slice() })
    }, 250)
    return () => { ending.abort(); clearInterval(timer) }
  }, [])

  useEffect(() => {
    if (kept.current.key !== key) kept.current = { ...fresh(), key }
    if (paused) return undefined
    const ending = new AbortController()
    const trouble = (problem) => { Object.assign(kept.current, { problem, changed: true }) }
    // Filters are typed: not one feed a letter.
    const begin = setTimeout(() => follow({ ...given(filters), values }, ending.signal, hear, trouble), 250)
    return () => { ending.abort(); clearTimeout(begin) }
  }, [key, paused])
  return view
}

export function Live({ overview, params }) {
  const [filters, setFilters] = useState({ ...NOTHING, ...params })
  const [values, setValues] = useState(false)
  const [paused, setPaused] = useState(false)
  const [open, setOpen] = useState(null)
  const { rows, pulse, problem } = useFeed(filters, values, paused)
  const set = (name) => (value) => setFilters((was) => ({ ...was, [name]: value }))
  const typed = (name) => (event) => set(name)(event.currentTarget.value)
  const lanes = overview?.status.lanes ?? []
  const filtered = Object.values(filters).some(Boolean)

  return (
    <>
      <Head title="Live" note="Events as they pass, at most 200 a second. Nothing is watched while this is closed.">
        <Toggle label="Show values" on={values} onChange={setValues} />
        <button type="button" class={paused ? 'primary' : ''} aria-pressed={paused} onClick={() => setPaused(!paused)}>
          {paused ? 'Resume' : 'Pause'}
        </button>
      </Head>
      <form class="filters" onSubmit={(event) => event.preventDefault()} aria-label="Filters">
        <Choice label="Source" value={filters.source} onChange={set('source')} options={[['', 'All'], ...lanes.map((lane) => [lane.name, lane.name])]} />
        <Choice label="Type" value={filters.type} onChange={set('type')} options={[['', 'All'], ...TYPES.map((type) => [type, type])]} />
        <Choice label="Verdict" value={filters.verdict} onChange={set('verdict')} options={[['', 'All'], ...Object.entries(VERDICTS).map(([key, [, words]]) => [key, words])]} />
        <Field label="Event name"><input value={filters.event} onInput={typed('event')} /></Field>
        <Field label="User id"><input value={filters.user} onInput={typed('user')} /></Field>
        <Field label="Any text" grow><input value={filters.text} onInput={typed('text')} /></Field>
        {filtered && <button type="button" class="small" onClick={() => setFilters(NOTHING)}>Clear</button>}
      </form>
      <p class="sampled"><span role="status">{paused ? 'Paused.' : problem}</span>{!paused && !problem && passing(pulse)}</p>
      {rows.length === 0 ? (
        <Empty title={filtered ? 'No event fits yet' : 'Waiting for events'}>
          {filtered ? 'Those that pass from now on and fit the filters show up here.' : <>They show up here as they come in. Nothing yet? <a href="#overview">Overview</a> says what is wrong, <a href="#setup">SDK set-up</a> what to paste.</>}
        </Empty>
      ) : <Rows rows={rows} onOpen={setOpen} />}
      {open && <Journey row={open} values={values} onValues={setValues} onClose={() => setOpen(null)} />}
    </>
  )
}

function passing(pulse) {
  if (!pulse) return 'Connecting…'
  const passed = `${plural(pulse.passed, 'event')} in the last second`
  return pulse.skipped ? `${passed}; a sample is shown: ${count(pulse.skipped)} were left out so that nothing is slowed down.` : `${passed}.`
}

function Rows({ rows, onOpen }) {
  return (
    <div class="scroll card flush">
      <table class="feed">
        <thead>
          <tr><th scope="col">Time</th><th scope="col">Verdict</th><th scope="col" class="type">Type</th><th scope="col">Event</th><th scope="col" class="wide">User</th><th scope="col" class="wide">Source</th><th scope="col">Hightouch</th></tr>
        </thead>
        <tbody>
          {rows.map((row) => {
            const [tone, words] = VERDICTS[row.verdict] ?? ['plain', row.verdict]
            return (
              <tr key={row.id} class={tone} onClick={() => onOpen(row)}>
                <td class="time">{clock(row.at)}</td>
                <td><Pill tone={tone}>{row.code || words}</Pill></td>
                <td class="mono type">{row.type || '–'}</td>
                <td class="name"><button type="button" class="link" onClick={(event) => { event.stopPropagation(); onOpen(row) }}>{row.event || (row.type === 'track' ? <i>no name</i> : <span class="soft" aria-label={row.type || 'event'}>–</span>)}</button><small class="narrow mono">{row.type || 'no type'}</small></td>
                <td class="mono wide">{row.user ?? '–'}</td>
                <td class="wide">{row.source}</td>
                <td class="mono">{outcome(row)}</td>
              </tr>
            )
          })}
        </tbody>
      </table>
    </div>
  )
}

function outcome({ verdict, attempt }) {
  if (verdict !== 'accepted') return <span class="soft">–</span>
  if (!attempt) return <span class="soft">waiting</span>
  return attempt.outcome === 'delivered'
    ? <span class="good-text">✓ {attempt.status}</span>
    : <span class="bad-text">{attempt.answer}</span>
}

function Journey({ row, values, onValues, onClose }) {
  const [found, setFound] = useState(null)
  const [problem, setProblem] = useState('')
  const [tab, setTab] = useState('changes')
  useEffect(() => {
    let stopped = false
    let timer = 0
    const look = async () => {
      try {
        const journey = await get(`api/journeys/${row.id}${query({ values })}`)
        if (stopped) return
        setFound({ ...journey, values })
        const done = journey.verdict !== 'accepted' || journey.attempts.at(-1)?.outcome === 'delivered'
        if (!done) timer = setTimeout(look, 1000)
      } catch (error) {
        if (stopped) return
        setProblem(error.message)
        setFound((was) => (was?.values === values ? was : null)) // no values after they were switched off
      }
    }
    look()
    return () => { stopped = true; clearTimeout(timer) }
  }, [row.id, values])

  return (
    <Dialog title={row.event || row.type || 'Event'} wide onClose={onClose}>
      {problem && !found && <p class="problem">{problem}</p>}
      {found && (
        <>
          <div class="dialog-tools">
            <span class="mono soft">{found.messageId}</span>
            <Toggle label="Show values" on={values} onChange={onValues} />
          </div>
          <Way journey={found} />
          <Segments label="Part shown" value={tab} onChange={setTab} options={[['changes', `Differences (${found.changes.length})`], ['received', 'Received'], ['sent', 'Sent']]} />
          {tab === 'changes' && <Changes journey={found} />}
          {tab === 'received' && <Json text={found.received} label="The event as it was received" />}
          {tab === 'sent' && (found.sent ? <Json text={found.sent} label="The event as it is sent" /> : <p class="soft pad">It is not sent.</p>)}
        </>
      )}
    </Dialog>
  )
}

function Way({ journey }) {
  const [tone, words] = VERDICTS[journey.verdict] ?? ['plain', journey.verdict]
  const last = journey.attempts.at(-1)
  return (
    <ol class="way">
      <li class="good"><b>Received</b> <time>{moment(journey.at)}</time><span class="soft">{journey.source} · {size(journey.bytes)}</span></li>
      <li class={tone}>
        <b>{words[0].toUpperCase() + words.slice(1)}</b>{journey.code && <code>{journey.code}</code>}
        <span class="soft">{journey.message || (journey.verdict === 'accepted' ? `on disk · mapping ${journey.revision}${journey.rule ? ` · ${journey.rule}` : ''}` : '')}</span>
      </li>
      {journey.verdict === 'accepted' && journey.attempts.length === 0 && <li class="plain"><b>Waits for its batch</b><span class="soft">or the proxy could not be watched when it left</span></li>}
      {last && (
        <li class={last.outcome === 'delivered' ? 'good' : 'bad'}>
          <b>{last.outcome === 'delivered' ? 'Delivered' : 'Not delivered yet'}</b> <time>{moment(last.at)}</time>
          <span class="soft">in batch {last.batch}, with {plural(last.events, 'event')} · Hightouch: {last.status ?? last.answer} in {millis(last.seconds)}{journey.attempts.length > 1 ? ` · attempt ${journey.attempts.length}` : ''}{last.detail ? ` · ${last.detail}` : ''}</span>
        </li>
      )}
    </ol>
  )
}

function Changes({ journey }) {
  if (!journey.sent) return <p class="soft pad">It is not sent, so there is nothing to compare.</p>
  if (journey.changes.length === 0) return <p class="soft pad">It is sent as it was received, byte for byte.</p>
  return (
    <div class="scroll" tabindex="0" role="region" aria-label="Differences"><table class="changes">
      <thead><tr><th scope="col">Field</th><th scope="col">Received</th><th scope="col">Sent</th><th scope="col">What did it</th></tr></thead>
      <tbody>
        {journey.changes.map((change) => (
          <tr key={change.key}>
            <th scope="row" class="mono">{change.key}</th>
            <td class="mono was">{change.before ?? <span class="soft">absent</span>}</td>
            <td class="mono now">{change.after ?? <span class="soft">absent</span>}</td>
            <td>{change.did}{change.rule && <> · <code>{change.rule}</code></>}{change.detail && <small>{change.detail}</small>}</td>
          </tr>
        ))}
      </tbody>
    </table></div>
  )
}
