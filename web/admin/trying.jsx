import { useEffect, useState } from 'preact/hooks'
import { lines, post, query } from './api.js'
import { count } from './format.js'
import { Choice, Head, Json, Pill, Words } from './parts.jsx'

const SAMPLES = {
  track: { type: 'track', anonymousId: 'a-visitor', event: 'Order Completed', properties: { orderId: 'o-1', total: 42.5, currency: 'EUR' } },
  identify: { type: 'identify', userId: 'user-1', traits: { email: 'zoe@example.com', plan: 'pro' } },
  page: { type: 'page', anonymousId: 'a-visitor', name: 'Home', properties: { path: '/' } },
  'track without a name': { type: 'track', anonymousId: 'a-visitor', properties: { clicked: true } },
}
const text = (value) => JSON.stringify(value, null, 2)

export function Trying({ overview }) {
  const sources = overview?.status.lanes.map((lane) => lane.name) ?? []
  const [source, setSource] = useState('')
  const [event, setEvent] = useState(text(SAMPLES.track))
  const [found, setFound] = useState(null)
  const [problem, setProblem] = useState('')
  const [sent, setSent] = useState('')
  const chosen = source || sources[0]

  useEffect(() => {
    if (!chosen) return undefined
    const timer = setTimeout(async () => {
      try {
        setFound(await post('api/try', { event, source: chosen }))
        setProblem('')
      } catch (error) { setProblem(error.message) }
    }, 200)
    return () => clearTimeout(timer)
  }, [event, chosen])

  const send = async () => {
    setSent('Sending…')
    try {
      const told = await post('api/try/send', { event, source: chosen })
      setSent(told.accepted ? `Accepted, on its way to Hightouch as ${told.messageId}.` : `Set aside: ${told.code}. ${told.message}`)
    } catch (error) { setSent(error.message) }
  }
  const pick = async () => {
    setSent('The next event that comes in is taken…')
    const ending = new AbortController()
    const timer = setTimeout(() => ending.abort(), 10_000)
    try {
      await lines(`api/live${query({ bodies: true, values: true, source: chosen })}`, { signal: ending.signal }, (line) => {
        if (line.kind !== 'event' || ending.signal.aborted) return
        setEvent(typeof line.body === 'string' ? line.body : text(line.body))
        setSent('')
        ending.abort()
      })
    } catch {
      setSent((was) => (was ? 'No event came in within 10 s.' : ''))
    } finally { clearTimeout(timer) }
  }

  return (
    <>
      <Head title="Try it" note="What would become of an event, as you type. Nothing is stored or counted until you send it." />
      <div class="grid two trying">
        <section class="card" aria-labelledby="event-title">
          <div class="card-head"><h2 id="event-title">Event</h2></div>
          <div class="filters">
            <Choice label="Source" value={chosen} onChange={setSource} options={sources.map((name) => [name, name])} />
            <Choice label="Begin with" value="" onChange={(key) => key && setEvent(text(SAMPLES[key]))} options={[['', 'a sample…'], ...Object.keys(SAMPLES).map((key) => [key, key])]} />
            <button type="button" onClick={pick}>Take the next that comes in</button>
          </div>
          <label class="sr" for="event-text">Event as JSON</label>
          <textarea id="event-text" class="mono" spellcheck={false} rows={16} value={event} onInput={(e) => { setEvent(e.currentTarget.value); setSent('') }} />
          <div class="send">
            <button type="button" class="primary" onClick={send}>Send as test event</button>
            <p role="status" class="soft">{sent}</p>
          </div>
        </section>
        <section class="card" aria-labelledby="result-title">
          <div class="card-head"><h2 id="result-title">What is sent</h2>{found && <Verdict found={found} />}</div>
          {problem && <p class="problem">{problem}</p>}
          {found && <Result found={found} />}
        </section>
      </div>
      {found && found.supplied.length > 0 && <Explained found={found} />}
    </>
  )
}

function Verdict({ found }) {
  return found.verdict === 'accepted' ? <Pill tone="good">accepted</Pill>
    : <Pill tone={found.verdict === 'filtered' ? 'plain' : 'bad'}>{found.verdict}</Pill>
}

function Result({ found }) {
  const share = found.maxSize ? found.size / found.maxSize : 0
  return (
    <>
      {found.message && <p class="why"><Words text={`${found.message[0].toUpperCase()}${found.message.slice(1)}.`} /></p>}
      {found.filter && <p class="why">Removed by <code>{found.filter}</code>.</p>}
      {found.size > 0 && (
        <div class="size">
          <span>{count(found.size)} of {count(found.maxSize)} bytes</span>
          <div class="meter" aria-hidden="true"><i class={share > 1 ? 'bad' : ''} style={{ width: `${Math.min(share, 1) * 100}%` }} /></div>
        </div>
      )}
      {found.output && <Json text={found.output} label="The event as it would be sent" />}
      <p class="soft">Mapping revision {found.revision}{found.rule && ` · event rule ${found.rule}`}</p>
    </>
  )
}

function Explained({ found }) {
  const dropped = found.notes.filter((note) => !found.supplied.some((one) => one.key === note.key))
  return (
    <section class="card" aria-labelledby="explained-title">
      <div class="card-head"><h2 id="explained-title">Where each field comes from</h2></div>
      <div class="scroll" tabindex="0" role="region" aria-label="Table of fields"><table class="changes">
        <thead><tr><th scope="col">Field</th><th scope="col">What happened</th><th scope="col">From</th><th scope="col">Named by</th></tr></thead>
        <tbody>
          {[...found.supplied, ...dropped].map((one, index) => (
            <tr key={index}>
              <th scope="row" class="mono">{one.key}</th>
              <td>{one.did}{one.detail && <small>{one.detail}</small>}</td>
              <td class="mono">{one.input}</td>
              <td>{one.rule && <code>{one.rule}</code>}</td>
            </tr>
          ))}
        </tbody>
      </table></div>
    </section>
  )
}
